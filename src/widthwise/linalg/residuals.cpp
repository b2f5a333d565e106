// Sums of squares of A w - c, column by column, without making A w: for the first numbers of every row of A alone too.
// One thread; sums in an order that depends on the sizes alone.

#include <algorithm>
#include <vector>

#include "tile.hpp"

namespace {

constexpr int64_t LONG = 16;  // packs of w that the same rows are multiplied with: what is left stays in the cache
constexpr int64_t HIGH = 16 * TALL, DEEP = 512;  // rows of A that are packed, and how many of their numbers are next
constexpr int64_t NEXT = 8;                      // columns: those that are read then are fetched

// A matrix whose rows lie in bands: those of a band are `down` apart.
struct Matrix {
    const double* first;
    int64_t down, along, band, bands;

    const double* operator[](int64_t row) const { return first + row / band * bands + row % band * down; }
};

// Add the squares of some packed rows to those of their columns.
void add_squares(const double* rows, int64_t count, double* squares) {
    for (int64_t v = 0; v < WIDE; v += LANES) {
        Vector total = load(squares + v);
        for (int64_t r = 0; r < count; ++r) total += load(rows + r * WIDE + v) * load(rows + r * WIDE + v);
        store(squares + v, total);
    }
}

// Add A w, of TALL packed rows of A and a pack of w, to what is there of them.
void add_product(const double* A, const double* w, int64_t count, double* there) {
    Vector sums[TALL][VECTORS];
    for (int64_t r = 0; r < TALL; ++r)
        for (int64_t v = 0; v < VECTORS; ++v) sums[r][v] = load(there + r * WIDE + v * LANES);
    multiply<TALL>(A, w, count, sums);
    for (int64_t r = 0; r < TALL; ++r)
        for (int64_t v = 0; v < VECTORS; ++v) store(there + r * WIDE + v * LANES, sums[r][v]);
}

// The numbers [from, size) of some rows as packs of TALL rows; rows that are not there are 0.
void gather(const Matrix& A, int64_t row, int64_t rows, int64_t from, int64_t size, double* out) {
    const int64_t apart = (size - from) * TALL, whole = rows / TALL * TALL;
    const auto put = [&](int64_t r, int64_t k) -> double& {
        return out[r / TALL * apart + (k - from) * TALL + r % TALL];
    };
    if (whole < rows) std::fill(out + whole / TALL * apart, out + (whole / TALL + 1) * apart, 0.0);
    if (A.down == 1 && A.band >= row + rows)
        for (int64_t k = from; k < size; ++k) {
            const double* own = A[row] + k * A.along;
            for (int64_t r = 0; r < whole; r += TALL) {
                __builtin_prefetch(own + r + NEXT * A.along);
                std::copy(own + r, own + r + TALL, &put(r, k));
            }
            for (int64_t r = whole; r < rows; ++r) put(r, k) = own[r];
        }
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
    std::vector<double> squares, packed, left;  // (repeats * packs, edges, WIDE); some rows of A, and of c

    int64_t packs() const { return (targets + WIDE - 1) / WIDE; }
    int64_t column(int64_t pack) const { return pack % packs() * WIDE; }
    int64_t columns(int64_t pack) const { return std::min(WIDE, targets - column(pack)); }

    double* squares_of(int64_t pack, const int64_t* edge) {
        return squares.data() + (pack * (last - edges) + edge - edges) * WIDE;
    }

    // TALL rows of A, packed, and a pack of w: the numbers [at, end), with the squares at the edges up to there.
    void tile(int64_t pack, const double* rows, int64_t at, int64_t end, const int64_t* edge, double* left) {
        for (; edge < last; ++edge) {
            const int64_t stop = std::min(*edge, end);
            if (at < stop) {
                add_product(rows + at * TALL, w + pack * apart + at * WIDE, stop - at, left);
                at = stop;
            }
            if (*edge > end) return;
            add_squares(left, TALL, squares_of(pack, edge));
        }
    }

    // The rows [row, row + rows), HIGH at most, and all of w.
    void go(int64_t row, int64_t rows) {
        const int64_t begin = upper ? std::min(row, size) : 0, whole = repeats * packs();
        packed.resize((rows + TALL - 1) / TALL * TALL * (size - begin));
        gather(A, row, rows, begin, size, packed.data());
        for (int64_t first = 0; first < whole; first += LONG)
            go(row, rows, begin, first, std::min(LONG, whole - first));
    }

    // And some packs of w: where all numbers of a row are next at once, tile by tile.
    void go(int64_t row, int64_t rows, int64_t begin, int64_t first, int64_t count) {
        const int64_t high = (rows + TALL - 1) / TALL * TALL;
        const bool once = size - begin <= DEEP;
        left.resize((once ? TALL : count * high) * WIDE);
        const auto left_of = [&](int64_t k, int64_t r) { return left.data() + (once ? 0 : k * high + r) * WIDE; };
        for (int64_t k = 0; !once && k < count; ++k)
            for (int64_t r = 0; r < high; r += TALL) start(row + r, rows - r, first + k, begin, left_of(k, r));
        const int64_t* edge = std::find_if(edges, last, [&](int64_t end) { return end > begin; });
        for (int64_t from = begin; once || edge < last; from += DEEP) {
            const int64_t end = std::min(from + DEEP, size);
            for (int64_t k = 0; k < count; ++k)
                for (int64_t r = 0; r < rows; r += TALL) {
                    const int64_t at = upper ? std::max(from, row + r) : from;
                    if (once) {
                        start(row + r, rows - r, first + k, begin, left_of(k, r));
                        fetch(row + r + TALL, rows - r - TALL, first + k);
                    }
                    tile(first + k, packed.data() + r * (size - begin) - begin * TALL, at, end, edge, left_of(k, r));
                }
            if (once) return;
            while (edge < last && *edge <= end) ++edge;
        }
    }

    // Have what `start` reads of some rows at hand.
    void fetch(int64_t row, int64_t rows, int64_t pack) const {
        for (int64_t r = 0; r < std::min(rows, TALL); ++r)
            for (int64_t j = 0; j < columns(pack); j += LANES) __builtin_prefetch(c[row + r] + column(pack) + j);
    }

    // What of TALL rows, or fewer, no number has changed yet, with the squares at the edges up to there.
    void start(int64_t row, int64_t rows, int64_t pack, int64_t begin, double* left) {
        const int64_t count = columns(pack), there = std::clamp(rows, int64_t(0), TALL);
        std::fill(left + (count < WIDE ? 0 : there * WIDE), left + TALL * WIDE, 0.0);
        for (int64_t r = 0; r < there; ++r) {
            const double* own = c[row + r] + column(pack);
            for (int64_t j = 0; j < count; ++j) left[r * WIDE + j] = -own[j];
        }
        for (const int64_t* edge = edges; edge < last && *edge <= begin; ++edge)
            add_squares(left, TALL, squares_of(pack, edge));
    }

    // The squares as (edges, repeats * targets).
    void unpack(double* out) {
        for (const int64_t* e = edges; e < last; ++e)
            for (int64_t pack = 0; pack < repeats * packs(); ++pack)
                out = std::copy(squares_of(pack, e), squares_of(pack, e) + columns(pack), out);
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
        double total[WIDE] = {};
        for (int64_t k = 0; k < size; k += TALL) {
            const int64_t tall = std::min(TALL, size - k);
            if (along == 1)
                for (int64_t j = k; j < k + tall; ++j)
                    std::copy(w + j * down + begin, w + j * down + begin + columns, out + j * WIDE);
            else
                for (int64_t c = 0; c < columns; ++c)
                    for (int64_t j = k; j < k + tall; ++j) out[j * WIDE + c] = w[j * down + (begin + c) * along];
            add_squares(out + k * WIDE, tall, total);
        }
        for (int64_t c = 0; c < columns; ++c) squares[begin + c] += total[c];
    }
}

// Put into out (edges, repeats * targets) the squares of c - A w, of `bands` times `band` rows, with the first numbers
// of A's rows that every edge says, in order.
extern "C" void squares_float64(const double* A, int64_t A_down, int64_t A_along, int64_t A_bands, const double* c,
                                int64_t c_down, int64_t c_bands, int64_t bands, int64_t band, int64_t size,
                                int64_t upper, const double* w, int64_t apart, int64_t repeats, int64_t targets,
                                const int64_t* edges, int64_t edge_count, double* out) {
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
              {},
              {},
              {}};
    work.squares.resize(repeats * work.packs() * edge_count * WIDE);
    for (int64_t row = 0; row < bands * band; row += HIGH) work.go(row, std::min(HIGH, bands * band - row));
    work.unpack(out);
}
