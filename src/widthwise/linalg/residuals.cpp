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
constexpr int64_t LONG = 16;  // packs of w that the same rows are multiplied with: what is left stays in the cache
constexpr int64_t HIGH = 16 * TALL, DEEP = 512;  // rows of A that are packed, and how many of their numbers are next
constexpr int64_t AHEAD = 32;                    // numbers: what comes then is fetched, as no processor does over pages

typedef double Vector __attribute__((vector_size(LANES * sizeof(double)), aligned(sizeof(double)), may_alias));

// A matrix whose rows lie in bands: those of a band are `down` apart.
struct Matrix {
    const double* first;
    int64_t down, along, band, bands;

    const double* operator[](int64_t row) const { return first + row / band * bands + row % band * down; }
};

// Add the squares of some rows to those of their columns.
inline void square(const Vector (*rows)[VECTORS], int64_t count, Vector* squares) {
    for (int64_t r = 0; r < count; ++r)
        for (int64_t v = 0; v < VECTORS; ++v) squares[v] += rows[r][v] * rows[r][v];
}

// left -= A w, of TALL packed rows of A and a pack of w; add the squares of what is left then.
void subtract(const double* A, const double* w, int64_t count, Vector (*left)[VECTORS], Vector* squares) {
    Vector own[TALL][VECTORS];
    for (int64_t r = 0; r < TALL; ++r)
        for (int64_t v = 0; v < VECTORS; ++v) own[r][v] = left[r][v];
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
        for (int64_t v = 0; v < VECTORS; ++v) left[r][v] = own[r][v];
    if (squares) square(own, TALL, squares);
}

// The numbers [from, size) of some rows as packs of TALL rows; rows that are not there are 0.
void gather(const Matrix& A, int64_t row, int64_t rows, int64_t from, int64_t size, double* out) {
    const int64_t apart = (size - from) * TALL, whole = rows / TALL * TALL;
    const auto put = [&](int64_t r, int64_t k) -> double& {
        return out[r / TALL * apart + (k - from) * TALL + r % TALL];
    };
    if (whole < rows) std::fill(out + whole / TALL * apart, out + (whole / TALL + 1) * apart, 0.0);
    if (A.down == 1 && A.band >= row + rows)
        for (int64_t k = from; k < size; ++k)
            for (int64_t r = 0; r < rows; ++r) put(r, k) = A[row][r + k * A.along];
    else
        for (int64_t r = 0; r < rows; r += TALL)
            for (int64_t k = from; k < size; k += TALL)
                for (int64_t i = r; i < std::min(r + TALL, rows); ++i)
                    for (int64_t j = k; j < std::min(k + TALL, size); ++j) put(i, j) = A[row + i][j * A.along];
}

struct Work {
    Matrix A, c;
    int64_t size, upper;  // numbers of a row of A; whether those before the row's own number are 0
    const double* w;      // packed: (repeats * packs, size, WIDE)
    int64_t apart, repeats, targets;
    const int64_t *edges, *last;
    double* out;
    std::vector<double> packed, left, squares;  // of some rows

    int64_t packs() const { return (targets + WIDE - 1) / WIDE; }

    // Call f(number in turn, first column of c, how many columns) for some packs of w.
    template <class F>
    void each(int64_t first, int64_t count, const F& f) const {
        for (int64_t k = 0; k < count; ++k) {
            const int64_t column = (first + k) % packs() * WIDE;
            f(k, column, std::min(WIDE, targets - column));
        }
    }

    // The rows [row, row + rows) of a run, HIGH at most, and all of w.
    void go(int64_t row, int64_t rows, int64_t run) {
        const int64_t begin = upper ? std::min(row, size) : 0, whole = repeats * packs();
        packed.resize((rows + TALL - 1) / TALL * TALL * (size - begin));
        gather(A, row, rows, begin, size, packed.data());
        for (int64_t first = 0; first < whole; first += LONG)
            go(row, rows, run, begin, first, std::min(LONG, whole - first));
    }

    void go(int64_t row, int64_t rows, int64_t run, int64_t begin, int64_t first, int64_t count) {
        const int64_t high = (rows + TALL - 1) / TALL * TALL;
        left.assign(count * high * WIDE, 0.0);
        squares.assign(count * (last - edges) * WIDE, 0.0);
        const auto left_of = [&](int64_t k, int64_t r) {
            return reinterpret_cast<Vector(*)[VECTORS]>(left.data() + (k * high + r) * WIDE);
        };
        const auto squares_of = [&](int64_t k, const int64_t* edge) {
            return reinterpret_cast<Vector*>(squares.data() + (k * (last - edges) + edge - edges) * WIDE);
        };
        const int64_t* edge = edges;
        each(first, count, [&](int64_t k, int64_t column, int64_t columns) {
            for (int64_t r = 0; r < rows; ++r)
                std::copy(c[row + r] + column, c[row + r] + column + columns, left.data() + (k * high + r) * WIDE);
        });
        for (; edge < last && *edge <= begin; ++edge)
            for (int64_t k = 0; k < count; ++k) square(left_of(k, 0), rows, squares_of(k, edge));
        for (int64_t from = begin; edge < last; from += DEEP) {
            const int64_t end = std::min(from + DEEP, size);
            for (int64_t k = 0; k < count; ++k)
                for (int64_t r = 0; r < high; r += TALL) {
                    const double *own = packed.data() + r * (size - begin), *given = w + (first + k) * apart;
                    int64_t at = upper ? std::max(from, row + r) : from;
                    for (const int64_t* e = edge; e < last; ++e) {
                        const int64_t stop = std::min(*e, end);
                        Vector* of = *e <= end ? squares_of(k, e) : nullptr;
                        if (at < stop) {
                            subtract(own + (at - begin) * TALL, given + at * WIDE, stop - at, left_of(k, r), of);
                            at = stop;
                        } else if (of) {
                            square(left_of(k, r), TALL, of);
                        }
                        if (!of) break;
                    }
                }
            while (edge < last && *edge <= end) ++edge;
        }
        each(first, count, [&](int64_t k, int64_t column, int64_t columns) {
            for (const int64_t* e = edges; e < last; ++e) {
                double* to = out + (run * (last - edges) + (e - edges)) * repeats * targets;
                const double* own = squares.data() + (k * (last - edges) + (e - edges)) * WIDE;
                for (int64_t j = 0; j < columns; ++j) to[(first + k) / packs() * targets + column + j] += own[j];
            }
        });
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
        Vector total[VECTORS] = {};
        for (int64_t k = 0; k < size; k += TALL) {
            const int64_t tall = std::min(TALL, size - k);
            if (along == 1)
                for (int64_t j = k; j < k + tall; ++j)
                    std::copy(w + j * down + begin, w + j * down + begin + columns, out + j * WIDE);
            else
                for (int64_t c = 0; c < columns; ++c)
                    for (int64_t j = k; j < k + tall; ++j) out[j * WIDE + c] = w[j * down + (begin + c) * along];
            square(reinterpret_cast<const Vector(*)[VECTORS]>(out + k * WIDE), tall, total);
        }
        for (int64_t c = 0; c < columns; ++c) squares[begin + c] += total[c / LANES][c % LANES];
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
              {},
              {}};
    for (int64_t run = 0; run < runs; ++run)
        for (int64_t row = starts[run]; row < starts[run + 1]; row += HIGH)
            work.go(row, std::min(HIGH, starts[run + 1] - row), run);
}
