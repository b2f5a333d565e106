// Rows on their way into second moments: their extremes, then the rows less a shift, turned so that a column lies side
// by side, and the sums of every column's powers. One pass each over rows that lie anywhere. Each thread has columns of
// its own: sums are in an order that depends on the number of rows alone.

#include <algorithm>
#include <cstdint>

namespace {

constexpr int64_t ROWS = 128;  // of a tile, which is read by rows and written by columns: the first cache holds it
constexpr int64_t COLUMNS = 8;

// Rows of a matrix: all from the first on, or those of the numbers in `chosen`.
template <class T>
struct Rows {
    const T* first;
    int64_t stride;
    const int64_t* chosen;

    const T* operator[](int64_t row) const { return first + (chosen ? chosen[row] : row) * stride; }
};

template <class T>
void extremes(const Rows<T>& x, int64_t rows, int64_t columns, T* low, T* high, T* flaw) {
    for (int64_t row = 0; row < rows; ++row) {
        const T* own = x[row];
        for (int64_t c = 0; c < columns; ++c) {
            const T value = own[c];
            low[c] = value < low[c] ? value : low[c];
            high[c] = value > high[c] ? value : high[c];
            flaw[c] += value - value;  // NaN for what is not finite
        }
    }
}

// What of a column's values c = x - shift is added up: c and, behind it, its squares, cubes and fourth powers.
struct Sums {
    double* total;
    double* powers[3];
    int64_t before;  // columns that have no powers
};

template <class T, bool POWERS>
void tile(const Rows<T>& x, int64_t row, int64_t rows, int64_t column, int64_t columns, const double* shift,
          double* out, int64_t apart, const Sums& sums) {
    double turned[ROWS][COLUMNS], added[4][COLUMNS] = {};
    const auto read = [&](int64_t width) {
        for (int64_t r = 0; r < rows; ++r) {
            const T* own = x[row + r] + column;
            for (int64_t c = 0; c < width; ++c) {
                const double value = double(own[c]) - shift[column + c], square = value * value;
                turned[r][c] = value;
                added[0][c] += value;
                if constexpr (POWERS) {
                    added[1][c] += square;
                    added[2][c] += square * value;
                    added[3][c] += square * square;
                }
            }
        }
    };
    if (columns == COLUMNS)
        read(COLUMNS);  // a width that is known keeps the sums in registers
    else
        read(columns);
    for (int64_t c = 0; c < columns; ++c)
        for (int64_t r = 0; r < rows; ++r) out[(column + c) * apart + row + r] = turned[r][c];
    for (int64_t c = 0; c < columns; ++c) {
        sums.total[column + c] += added[0][c];
        if (POWERS && column + c >= sums.before)
            for (int64_t k = 0; k < 3; ++k) sums.powers[k][column + c - sums.before] += added[k + 1][c];
    }
}

// Do some work of every column, a run of them on each thread.
template <class Work>
void shared(int64_t columns, int64_t threads, const Work& work) {
    const int64_t tiles = (columns + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t k = 0; k < threads; ++k) {
        const int64_t first = tiles * k / threads * COLUMNS, last = tiles * (k + 1) / threads * COLUMNS;
        work(first, std::min(last, columns));
    }
}

template <class T>
void take(const Rows<T>& x, int64_t rows, int64_t columns, const double* shift, double* out, int64_t apart,
          const Sums& sums, int64_t threads) {
    shared(columns, threads, [&](int64_t first, int64_t last) {
        for (int64_t row = 0; row < rows; row += ROWS)
            for (int64_t column = first; column < last; column += COLUMNS) {
                const int64_t tall = std::min(ROWS, rows - row), wide = std::min(COLUMNS, last - column);
                if (column + wide > sums.before)
                    tile<T, true>(x, row, tall, column, wide, shift, out, apart, sums);
                else
                    tile<T, false>(x, row, tall, column, wide, shift, out, apart, sums);
            }
    });
}

}  // namespace

#define EXPORT(T, name)                                                                                               \
    extern "C" void extremes_##name(const T* x, int64_t stride, const int64_t* chosen, int64_t rows, int64_t columns, \
                                    T* low, T* high, T* flaw) {                                                       \
        extremes<T>({x, stride, chosen}, rows, columns, low, high, flaw);                                             \
    }                                                                                                                 \
    extern "C" void take_##name(const T* x, int64_t stride, const int64_t* chosen, int64_t rows, int64_t columns,     \
                                const double* shift, double* out, int64_t apart, double* total, double* squares,      \
                                double* cubes, double* fourths, int64_t before, int64_t threads) {                    \
        take<T>({x, stride, chosen}, rows, columns, shift, out, apart, {total, {squares, cubes, fourths}, before},    \
                threads);                                                                                             \
    }

EXPORT(float, float32)
EXPORT(double, float64)
