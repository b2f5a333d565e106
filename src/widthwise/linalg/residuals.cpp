// Sums of squares of c - A w, column by column, without making A w; of blocks of rows, or all. One thread; sums in an
// order that depends on the sizes and blocks alone.

#include <algorithm>

#include "tile.hpp"

namespace {

constexpr int64_t LONG = 16;  // packs of w that the same rows are multiplied with: what is left stays in the cache
constexpr int64_t HIGH = 16 * TALL, DEEP = 512;  // rows of A that are packed, and how many of their numbers are next
constexpr int64_t NEXT = 8;                      // columns: those that are read then are fetched

// The columns of every repeat in packs of WIDE.
struct Packs {
    int64_t repeats, targets;

    int64_t each() const { return (targets + WIDE - 1) / WIDE; }
    int64_t count() const { return repeats * each(); }
    int64_t column(int64_t pack) const { return pack % each() * WIDE; }
    int64_t columns(int64_t pack) const { return std::min(WIDE, targets - column(pack)); }
};

// Where number k of row r of some rows is put, whose numbers [from, size) are packed, TALL rows side by side.
struct Put {
    double* out;
    int64_t from, size;

    double& operator()(int64_t r, int64_t k) const {
        return out[r / TALL * (size - from) * TALL + (k - from) * TALL + r % TALL];
    }
};

// A and c as matrices; the squares are summed over rows: (packs, WIDE).
struct Matrices {
    const double* A;
    int64_t down, along;  // between the rows of A, and the numbers of one
    const double* c;
    int64_t c_down;
    Packs packs;
    Room<double> squares;

    void gather(int64_t row, int64_t rows, const Put& put) const {
        const int64_t whole = rows / TALL * TALL;
        if (down == 1)
            for (int64_t k = put.from; k < put.size; ++k) {
                const double* own = A + row + k * along;
                for (int64_t r = 0; r < whole; r += TALL) {
                    __builtin_prefetch(own + r + NEXT * along);
                    std::copy(own + r, own + r + TALL, &put(r, k));
                }
                for (int64_t r = whole; r < rows; ++r) put(r, k) = own[r];
            }
        else
            for (int64_t r = 0; r < rows; r += TALL)
                for (int64_t k = put.from; k < put.size; k += TALL)
                    for (int64_t i = r; i < std::min(r + TALL, rows); ++i)
                        for (int64_t j = k; j < std::min(k + TALL, put.size); ++j)
                            put(i, j) = A[(row + i) * down + j * along];
    }

    const double* own(int64_t row, int64_t pack) const { return c + row * c_down + packs.column(pack); }

    void fetch(int64_t row, int64_t pack) const {
        for (int64_t j = 0; j < packs.columns(pack); j += LANES) __builtin_prefetch(own(row, pack) + j);
    }

    void start(int64_t row, int64_t pack, double* left) {
        for (int64_t j = 0; j < packs.columns(pack); ++j) left[j] = -own(row, pack)[j];
    }

    void add(int64_t, int64_t rows, int64_t pack, const double* left) {
        add_squares(left, rows, squares.data() + pack * WIDE);
    }
};

// A and c as rows of features x and y, some of them: x - shift, and y - centre of the row's stratum. The squares are
// summed over the rows of a block: (blocks, targets); those of y - mean too.
template <class T>
struct Features {
    const T* x;
    int64_t x_stride;
    const T* y;
    int64_t y_stride;
    const int64_t *chosen, *stratum, *block;
    const double *shift, *centre, *mean;
    double *errors, *totals;
    Packs packs;

    int64_t at(int64_t row, int64_t pack) const { return block[row] * packs.targets + packs.column(pack); }

    void gather(int64_t row, int64_t rows, const Put& put) const {
        for (int64_t r = 0; r < rows; ++r) {
            const T* own = x + chosen[row + r] * x_stride;
            for (int64_t k = put.from; k < put.size; ++k) put(r, k) = own[k] - shift[k];
        }
    }

    void fetch(int64_t row, int64_t pack) const {
        const T* own = y + chosen[row] * y_stride + packs.column(pack);
        for (int64_t j = 0; j < packs.columns(pack); j += LANES) __builtin_prefetch(own + j);
    }

    void start(int64_t row, int64_t pack, double* left) {
        const int64_t before = (stratum ? stratum[row] : 0) * packs.targets + packs.column(pack);
        const T* own = y + chosen[row] * y_stride + packs.column(pack);
        double* total = totals + at(row, pack);
        for (int64_t j = 0; j < packs.columns(pack); ++j) {
            const double value = own[j], off = value - mean[before + j];
            left[j] = centre[before + j] - value;
            total[j] += off * off;
        }
    }

    void add(int64_t row, int64_t rows, int64_t pack, const double* left) {
        for (int64_t r = 0; r < rows; ++r) {
            double* error = errors + at(row + r, pack);
            for (int64_t j = 0; j < packs.columns(pack); ++j) error[j] += left[r * WIDE + j] * left[r * WIDE + j];
        }
    }
};

// What is left of c, of the rows and columns that are given.
template <class Given>
struct Work {
    Given given;
    int64_t size, upper;  // numbers of a row of A; whether those before the row's own number are 0
    const double* w;      // packed: (packs, size, WIDE)
    int64_t apart;
    Room<double> packed, left;  // some rows of A, and of c

    void go(int64_t rows) {
        for (int64_t row = 0; row < rows; row += HIGH) go(row, std::min(HIGH, rows - row));
    }

    // The rows [row, row + rows), HIGH at most, and all of w.
    void go(int64_t row, int64_t rows) {
        const int64_t begin = upper ? std::min(row, size) : 0, packs = given.packs.count();
        const int64_t high = (rows + TALL - 1) / TALL * TALL, whole = rows / TALL * TALL;
        packed.resize(high * (size - begin));
        if (whole < rows) std::fill(packed.begin() + whole * (size - begin), packed.end(), 0.0);
        given.gather(row, rows, {packed.data(), begin, size});
        for (int64_t first = 0; first < packs; first += LONG)
            go(row, rows, begin, first, std::min(LONG, packs - first));
    }

    // And some packs of w: where all numbers of a row are next at once, tile by tile.
    void go(int64_t row, int64_t rows, int64_t begin, int64_t first, int64_t count) {
        const int64_t high = (rows + TALL - 1) / TALL * TALL;
        const bool once = size - begin <= DEEP;
        left.resize((once ? TALL : count * high) * WIDE);
        const auto left_of = [&](int64_t k, int64_t r) { return left.data() + (once ? 0 : k * high + r) * WIDE; };
        for (int64_t k = 0; !once && k < count; ++k)
            for (int64_t r = 0; r < rows; r += TALL) start(row + r, rows - r, first + k, left_of(k, r));
        for (int64_t from = begin, end = begin; once || end < size; from = end) {
            end = std::min(from + DEEP, size);
            for (int64_t k = 0; k < count; ++k)
                for (int64_t r = 0; r < rows; r += TALL) {
                    if (once) {
                        start(row + r, rows - r, first + k, left_of(k, r));
                        for (int64_t i = r + TALL; i < std::min(r + 2 * TALL, rows); ++i)
                            given.fetch(row + i, first + k);
                    }
                    const double* own = packed.data() + r * (size - begin) - begin * TALL;
                    const int64_t at = upper ? std::max(from, row + r) : from;
                    if (at < end)
                        add_product<TALL>(own + at * TALL, w + (first + k) * apart + at * WIDE, end - at,
                                          left_of(k, r));
                    if (end == size) given.add(row + r, std::min(TALL, rows - r), first + k, left_of(k, r));
                }
            if (once) return;
        }
    }

    // What of TALL rows, or fewer, no number has changed yet.
    void start(int64_t row, int64_t rows, int64_t pack, double* left) {
        const int64_t there = std::min(rows, TALL);
        std::fill(left + (given.packs.columns(pack) < WIDE ? 0 : there * WIDE), left + TALL * WIDE, 0.0);
        for (int64_t r = 0; r < there; ++r) given.start(row + r, pack, left + r * WIDE);
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

// Put into out (repeats * targets) the squares of c - A w.
extern "C" void squares_float64(const double* A, int64_t down, int64_t along, const double* c, int64_t c_down,
                                int64_t rows, int64_t size, int64_t upper, const double* w, int64_t apart,
                                int64_t repeats, int64_t targets, double* out) {
    const Packs packs{repeats, targets};
    Matrices given{A, down, along, c, c_down, packs, Room<double>(packs.count() * WIDE)};
    Work<Matrices> work{std::move(given), size, upper, w, apart, {}, {}};
    work.go(rows);
    for (int64_t pack = 0; pack < packs.count(); ++pack) {
        const double* own = work.given.squares.data() + pack * WIDE;
        out = std::copy(own, own + packs.columns(pack), out);
    }
}

// Add the squares of y - centre - (x - shift) w, and of y - mean, of every row to those of its block.
template <class T>
void add_blocks(const Features<T>& given, int64_t rows, int64_t size, const double* w, int64_t apart) {
    Work<Features<T>> work{given, size, false, w, apart, {}, {}};
    work.go(rows);
}

#define EXPORT(T, name)                                                                                               \
    extern "C" void add_blocks_##name(                                                                                \
        const T* x, int64_t x_stride, const T* y, int64_t y_stride, const int64_t* chosen, const int64_t* stratum,    \
        const int64_t* block, int64_t rows, int64_t size, int64_t targets, const double* shift, const double* centre, \
        const double* mean, const double* w, int64_t apart, double* errors, double* totals) {                         \
        add_blocks<T>(                                                                                                \
            {x, x_stride, y, y_stride, chosen, stratum, block, shift, centre, mean, errors, totals, {1, targets}},    \
            rows, size, w, apart);                                                                                    \
    }

EXPORT(float, float32)
EXPORT(double, float64)
