// Sums of squares of every column, in one pass. One thread; sums in an order that depends on the number of rows alone.

#include <cstdint>

namespace {

constexpr int64_t ROWS = 4;  // that are added before their sum is put down

template <int64_t TALL, bool LESS>
void add(const double* x, int64_t apart, const double* less, int64_t less_apart, int64_t columns, double* sums) {
    for (int64_t c = 0; c < columns; ++c) {
        double sum = 0;
        for (int64_t r = 0; r < TALL; ++r) {
            const double value = LESS ? x[r * apart + c] - less[r * less_apart + c] : x[r * apart + c];
            sum += value * value;
        }
        sums[c] += sum;
    }
}

template <bool LESS>
void every(const double* x, int64_t apart, int64_t rows, int64_t columns, const double* less, int64_t less_apart,
           double* sums) {
    int64_t row = 0;
    for (; row + ROWS <= rows; row += ROWS)
        add<ROWS, LESS>(x + row * apart, apart, less + row * less_apart, less_apart, columns, sums);
    for (; row < rows; ++row) add<1, LESS>(x + row * apart, apart, less + row * less_apart, less_apart, columns, sums);
}

}  // namespace

// Add to `sums` (runs, repeats * columns) the squares of x (runs * rows, repeats * columns), those of a run of rows to
// one row of them; of x - less, of (rows, columns), where that is given.
extern "C" void add_float64(const double* x, int64_t apart, int64_t runs, int64_t rows, int64_t repeats,
                            int64_t columns, const double* less, int64_t less_apart, double* sums) {
    for (int64_t run = 0; run < runs; ++run)
        for (int64_t repeat = 0; repeat < repeats; ++repeat) {
            const double* own = x + run * rows * apart + repeat * columns;
            double* to = sums + (run * repeats + repeat) * columns;
            if (less)
                every<true>(own, apart, rows, columns, less, less_apart, to);
            else
                every<false>(own, apart, rows, columns, own, apart, to);
        }
}
