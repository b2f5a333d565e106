// Rows packed for products: WIDE columns side by side, row after row, then the next WIDE columns. Rows are packed from
// where they lie, less a shift, while the sums of every column's powers are taken; then columns are multiplied. Sums
// are in an order that depends on the number of rows alone: every thread has columns, or tiles, of its own.

#include <algorithm>
#include <vector>

#include "tile.hpp"

namespace {

constexpr int64_t ROWS = 8;                    // that are packed together: as many streams as a processor follows
constexpr int64_t HIGH = 16 * TALL, LONG = 4;  // of a thread's work: columns on the left, packs on the right

typedef float Halves __attribute__((vector_size(LANES * sizeof(float))));

// A vector of values, or one, as double precision.
template <class V>
V widened(const double* from) {
    return load<V>(from);
}

template <class V>
V widened(const float* from) {
    if constexpr (sizeof(V) == sizeof(double))
        return *from;
    else
        return __builtin_convertvector(load<Halves>(from), V);
}

double* pack(double* first, int64_t apart, int64_t column) { return first + column / WIDE * apart + column % WIDE; }

// Packing --------------------------------------------------------------------------------------------------

// Rows of a matrix: all from the first on, or those of the numbers in `chosen`.
template <class T>
struct Rows {
    const T* first;
    int64_t stride;
    const int64_t* chosen;

    const T* operator[](int64_t row) const { return first + (chosen ? chosen[row] : row) * stride; }
};

// What of a column's values c = x - shift is added up: c and, behind it, its squares, cubes and fourth powers.
struct Sums {
    double* total;
    double* powers[3];
    int64_t before;  // columns that have no powers
};

// Some rows of COUNT vectors of columns, or of COUNT columns.
template <class V, bool POWERS, int64_t COUNT, class T>
void some(const Rows<T>& x, int64_t row, int64_t rows, int64_t column, const double* shift, double* out,
          const Sums& sums) {
    constexpr int64_t STEP = sizeof(V) / sizeof(double);
    V less[COUNT], added[4][COUNT] = {};
    for (int64_t v = 0; v < COUNT; ++v) less[v] = load<V>(shift + column + v * STEP);
    for (int64_t r = row; r < row + rows; ++r) {
        const T* own = x[r] + column;
        for (int64_t v = 0; v < COUNT; ++v) {
            const V value = widened<V>(own + v * STEP) - less[v];
            store(out + r * WIDE + v * STEP, value);
            added[0][v] += value;
            if constexpr (POWERS) {
                const V square = value * value;
                added[1][v] += square;
                added[2][v] += square * value;
                added[3][v] += square * square;
            }
        }
    }
    const auto add = [](double* to, const V& given) { store(to, load<V>(to) + given); };
    for (int64_t v = 0; v < COUNT; ++v) {
        add(sums.total + column + v * STEP, added[0][v]);
        if constexpr (POWERS)
            for (int64_t k = 0; k < 3; ++k) add(sums.powers[k] + column - sums.before + v * STEP, added[k + 1][v]);
    }
}

template <bool POWERS, class T>
void columns(const Rows<T>& x, int64_t row, int64_t rows, int64_t column, int64_t count, const double* shift,
             double* out, const Sums& sums) {
    if (count == WIDE) return some<Vector, POWERS, VECTORS>(x, row, rows, column, shift, out, sums);
    for (int64_t c = 0; c < count; ++c) some<double, POWERS, 1>(x, row, rows, column + c, shift, out + c, sums);
}

template <class T>
void take(const Rows<T>& x, int64_t rows, int64_t count, const double* shift, double* out, int64_t apart, int64_t at,
          const Sums& sums, int64_t threads) {
    const int64_t first = at / WIDE, packs = (at + count + WIDE - 1) / WIDE - first;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t thread = 0; thread < threads; ++thread)
        for (int64_t row = 0; row < rows; row += ROWS)
            for (int64_t k = first + packs * thread / threads; k < first + packs * (thread + 1) / threads; ++k) {
                // The columns of x that lie in a pack; those without powers, then those with.
                const int64_t begin = std::max(k * WIDE - at, int64_t(0)), end = std::min((k + 1) * WIDE - at, count);
                const int64_t middle = std::clamp(sums.before, begin, end), tall = std::min(ROWS, rows - row);
                columns<false>(x, row, tall, begin, middle - begin, shift, pack(out, apart, at + begin), sums);
                if (middle < end)
                    columns<true>(x, row, tall, middle, end - middle, shift, pack(out, apart, at + middle), sums);
            }
}

// Products -------------------------------------------------------------------------------------------------

// out += left' right, of `tall` columns on the left from a multiple of TALL on, and `count` on the right; of a product
// that is one of columns with themselves only what is on or right of the diagonal need be right.
struct Product {
    double* left;
    int64_t left_apart, top, tall;
    double* right;
    int64_t right_apart, first, count;
    double* out;
    int64_t out_apart, upper;
};

// A tile of a product whose first column on the left is `row` of its own, on the right `column`, both relative to out.
void add(const Product& of, int64_t row, int64_t column, int64_t rows) {
    const int64_t tall = std::min(TALL, of.tall - row);
    const int64_t begin = std::max(-column, int64_t(0)), end = std::min(WIDE, of.count - column);
    double* out = of.out + row * of.out_apart + column;
    for (int64_t r = 0; r < tall; ++r)
        for (int64_t v = 0; v < VECTORS; ++v) __builtin_prefetch(out + r * of.out_apart + v * LANES, 1);
    Vector sums[TALL][VECTORS] = {};
    multiply<WIDE>(pack(of.left, of.left_apart, of.top + row), pack(of.right, of.right_apart, of.first + column), rows,
                   sums);
    for (int64_t r = 0; r < tall; ++r, out += of.out_apart)
        if (end - begin == WIDE)
            for (int64_t v = 0; v < VECTORS; ++v) store(out + v * LANES, load(out + v * LANES) + sums[r][v]);
        else
            for (int64_t c = begin; c < end; ++c) out[c] += sums[r][c / LANES][c % LANES];
}

struct Work {
    const Product* of;
    int64_t row, pack;

    void go(int64_t rows) const {
        const int64_t packs = (of->first + of->count + WIDE - 1) / WIDE;
        for (int64_t k = pack; k < std::min(pack + LONG, packs); ++k)
            for (int64_t r = row; r < std::min(row + HIGH, of->tall); r += TALL)
                if (!of->upper || (k + 1) * WIDE - of->first > r) add(*of, r, k * WIDE - of->first, rows);
    }
};

}  // namespace

extern "C" const int64_t wide = WIDE;

#define EXPORT(T, name)                                                                                              \
    extern "C" void take_##name(const T* x, int64_t stride, const int64_t* chosen, int64_t rows, int64_t count,      \
                                const double* shift, double* out, int64_t apart, int64_t at, double* total,          \
                                double* squares, double* cubes, double* fourths, int64_t before, int64_t threads) {  \
        take<T>({x, stride, chosen}, rows, count, shift, out, apart, at, {total, {squares, cubes, fourths}, before}, \
                threads);                                                                                            \
    }

EXPORT(float, float32)
EXPORT(double, float64)

extern "C" void add_float64(const Product* products, int64_t count, int64_t rows, int64_t threads) {
    std::vector<Work> work;
    for (const Product* of = products; of < products + count; ++of)
        for (int64_t row = 0; row < of->tall; row += HIGH)
            for (int64_t k = of->first / WIDE; k * WIDE < of->first + of->count; k += LONG)
                if (!of->upper || (k + LONG) * WIDE - of->first > row) work.push_back({of, row, k});
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (size_t k = 0; k < work.size(); ++k) work[k].go(rows);
}
