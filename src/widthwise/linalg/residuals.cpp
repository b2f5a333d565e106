// Sums of squares of c - A w, column by column, without making A w: for the first numbers of every row of A alone too,
// and over runs of rows. A tile of TALL rows by WIDE columns is in the registers. One thread; sums in an order that
// depends on the sizes alone.

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

#ifdef __AVX512F__
constexpr int64_t LANES = 8, TALL = 8;
#else
constexpr int64_t LANES = 4, TALL = 4;
#endif
constexpr int64_t VECTORS = 3, WIDE = LANES * VECTORS;
constexpr int64_t DEEP = 512, HIGH = 16 * TALL;  // of a part of A that is packed: numbers of a row, and rows
constexpr int64_t AHEAD = 32;                    // numbers: what comes then is fetched, as no processor does over pages

typedef double Vector __attribute__((vector_size(LANES * sizeof(double)), aligned(sizeof(double)), may_alias));

// A matrix whose rows lie in bands: those of a band are `down` apart.
struct Matrix {
    const double* first;
    int64_t down, along, band, bands;

    const double* operator[](int64_t row) const { return first + row / band * bands + row % band * down; }
};

// sums -= A w: of TALL packed rows of A and a pack of w.
void subtract(const double* A, const double* w, int64_t count, double* sums) {
    Vector own[TALL][VECTORS];
    for (int64_t r = 0; r < TALL; ++r)
        for (int64_t v = 0; v < VECTORS; ++v) own[r][v] = *reinterpret_cast<const Vector*>(sums + r * WIDE + v * LANES);
    for (int64_t k = 0; k < count; ++k) {
        Vector given[VECTORS];
        for (int64_t v = 0; v < VECTORS; ++v) {
            __builtin_prefetch(w + (k + AHEAD) * WIDE + v * LANES);
            given[v] = *reinterpret_cast<const Vector*>(w + k * WIDE + v * LANES);
            asm("" : "+v"(given[v]));  // in a register: GCC reads it again with every product
        }
        for (int64_t r = 0; r < TALL; ++r)
            for (int64_t v = 0; v < VECTORS; ++v) own[r][v] -= A[k * TALL + r] * given[v];
    }
    for (int64_t r = 0; r < TALL; ++r)
        for (int64_t v = 0; v < VECTORS; ++v) *reinterpret_cast<Vector*>(sums + r * WIDE + v * LANES) = own[r][v];
}

// Add the squares of some rows, packed, to those of their columns.
void square(const double* rows, int64_t count, int64_t columns, double* out) {
    Vector total[VECTORS] = {};
    for (int64_t r = 0; r < count; ++r)
        for (int64_t v = 0; v < VECTORS; ++v) {
            const Vector own = *reinterpret_cast<const Vector*>(rows + r * WIDE + v * LANES);
            total[v] += own * own;
        }
    for (int64_t c = 0; c < columns; ++c) out[c] += total[c / LANES][c % LANES];
}

// Some numbers of some rows as packs of TALL rows; rows that are not there are 0.
void gather(const Matrix& A, int64_t row, int64_t rows, int64_t from, int64_t to, double* out) {
    for (int64_t r = 0; r < rows; r += TALL, out += (to - from) * TALL) {
        const int64_t tall = std::min(TALL, rows - r);
        if (tall < TALL) std::fill(out, out + (to - from) * TALL, 0.0);
        if (A.along == 1)
            for (int64_t i = 0; i < tall; ++i) {
                const double* own = A[row + r + i];
                for (int64_t k = from; k < to; ++k) out[(k - from) * TALL + i] = own[k];
            }
        else
            for (int64_t k = from; k < to; ++k)
                for (int64_t i = 0; i < tall; ++i) out[(k - from) * TALL + i] = A[row + r + i][k * A.along];
    }
}

struct Work {
    Matrix A, c;
    int64_t size, upper;  // numbers of a row of A; whether those before the row's own number are 0
    const double* w;      // packed: (repeats * packs, size, WIDE)
    int64_t apart, repeats, targets;
    const int64_t *edges, *last;
    double* out;
    std::vector<double> sums, packed;  // of some rows: what is left of c, pack by pack; A

    int64_t packs() const { return (targets + WIDE - 1) / WIDE; }

    // Call f(pack, its first column, how many it has, its column of the result) for every pack of w.
    template <class F>
    void each(const F& f) const {
        for (int64_t pack = 0; pack < repeats * packs(); ++pack) {
            const int64_t column = pack % packs() * WIDE;
            f(pack, column, std::min(WIDE, targets - column), pack / packs() * targets + column);
        }
    }

    // Add the squares of what is left of some rows to those of an edge.
    void put(const double* rows, int64_t count, int64_t columns, int64_t run, const int64_t* edge, int64_t to) const {
        square(rows, count, columns, out + (run * (last - edges) + (edge - edges)) * repeats * targets + to);
    }

    // The rows [row, row + rows) of a run: at most HIGH.
    void go(int64_t row, int64_t rows, int64_t run) {
        const int64_t high = (rows + TALL - 1) / TALL * TALL, begin = upper ? row / DEEP * DEEP : 0;
        const auto left = [&](int64_t pack, int64_t r) { return sums.data() + (pack * high + r) * WIDE; };
        const int64_t* edge = edges;
        each([&](int64_t pack, int64_t column, int64_t columns, int64_t) {
            for (int64_t r = 0; r < high; ++r) {
                const int64_t given = r < rows ? columns : 0;
                if (given) std::copy(c[row + r] + column, c[row + r] + column + given, left(pack, r));
                std::fill(left(pack, r) + given, left(pack, r) + WIDE, 0.0);
            }
        });
        for (; edge < last && *edge <= begin; ++edge)
            each([&](int64_t pack, int64_t, int64_t columns, int64_t to) {
                put(left(pack, 0), rows, columns, run, edge, to);
            });
        for (int64_t from = begin; edge < last; from += DEEP) {
            const int64_t end = std::min(from + DEEP, size);
            gather(A, row, rows, from, end, packed.data());
            each([&](int64_t pack, int64_t, int64_t columns, int64_t to) {
                for (int64_t r = 0; r < high; r += TALL) {
                    const double* own = packed.data() + r * (end - from);
                    int64_t at = upper ? std::max(from, row + r) : from;
                    for (const int64_t* e = edge; e < last; ++e) {
                        const int64_t stop = std::min(*e, end);
                        if (at < stop) {
                            subtract(own + (at - from) * TALL, w + pack * apart + at * WIDE, stop - at, left(pack, r));
                            at = stop;
                        }
                        if (*e > end) break;
                        put(left(pack, r), TALL, columns, run, e, to);
                    }
                }
            });
            while (edge < last && *edge <= end) ++edge;
        }
    }
};

}  // namespace

extern "C" const int64_t wide = WIDE;

// w (size, repeats * targets), whose numbers lie `down` and `along` apart, packed; and the squares of its columns
// added.
extern "C" void pack_float64(const double* w, int64_t down, int64_t along, int64_t size, int64_t repeats,
                             int64_t targets, double* out, int64_t apart, double* squares) {
    const int64_t packs = (targets + WIDE - 1) / WIDE;
    for (int64_t pack = 0; pack < repeats * packs; ++pack, out += apart) {
        const int64_t column = pack % packs * WIDE, columns = std::min(WIDE, targets - column);
        const int64_t begin = pack / packs * targets + column;
        if (columns < WIDE) std::fill(out, out + size * WIDE, 0.0);
        for (int64_t k = 0; k < size; k += TALL) {
            const int64_t tall = std::min(TALL, size - k);
            if (along == 1)
                for (int64_t j = k; j < k + tall; ++j)
                    std::copy(w + j * down + begin, w + j * down + begin + columns, out + j * WIDE);
            else
                for (int64_t c = 0; c < columns; ++c)
                    for (int64_t j = k; j < k + tall; ++j) out[j * WIDE + c] = w[j * down + (begin + c) * along];
            square(out + k * WIDE, tall, columns, squares + begin);
        }
    }
}

// Add to out (runs, edges, repeats * targets) the squares of c - A w over the rows of every run, which begin at
// `starts` and end where the next begins, with the first numbers of A's rows that every edge says, in order.
extern "C" void squares_float64(const double* A, int64_t A_down, int64_t A_along, int64_t A_bands, const double* c,
                                int64_t c_down, int64_t c_bands, int64_t band, const int64_t* starts, int64_t runs,
                                int64_t size, int64_t upper, const double* w, int64_t apart, int64_t repeats,
                                int64_t targets, const int64_t* edges, int64_t edge_count, double* out) {
    Work work{{A, A_down, A_along, band, A_bands},
              {c, c_down, 1, band, c_bands},
              size,
              upper,
              w,
              apart,
              repeats,
              targets,
              edges,
              edges + edge_count,
              out,
              {},
              {}};
    work.sums.resize(HIGH * repeats * work.packs() * WIDE);
    work.packed.resize(HIGH * std::min(DEEP, size));
    for (int64_t run = 0; run < runs; ++run)
        for (int64_t row = starts[run]; row < starts[run + 1]; row += HIGH)
            work.go(row, std::min(HIGH, starts[run + 1] - row), run);
}
