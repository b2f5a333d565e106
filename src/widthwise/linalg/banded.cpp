// (L L')^-1 C for a block bidiagonal L, given by the inverses of the blocks on its diagonal, which are lower
// triangular, and the blocks below it, which are upper triangular: forward through the blocks, then back, for a few
// packs of columns at a time. Half of every block is zero and left out. One thread; sums in an order that depends on
// the blocks alone.

#include <algorithm>

#include "tile.hpp"

namespace {

constexpr int64_t PACKS = 4;  // of WIDE columns, that go through all blocks together

enum Triangle { LOWER, UPPER };

// Where the numbers of a matrix lie: its own, or its transpose's.
template <bool TRANSPOSED>
double at(const double* A, int64_t size, int64_t row, int64_t column) {
    return TRANSPOSED ? A[column * size + row] : A[row * size + column];
}

// Some rows of what `times` does.
template <int64_t ROWS, Triangle TRIANGLE, bool TRANSPOSED, bool SUBTRACTED>
void tile(const double* A, int64_t size, int64_t row, const double* x, double* out) {
    const int64_t first = TRIANGLE == UPPER ? row : 0, last = TRIANGLE == LOWER ? row + ROWS : size;
    Vector sums[ROWS][VECTORS] = {};
    for (int64_t k = first; k < last; ++k) {
        Vector given[VECTORS];
        for (int64_t v = 0; v < VECTORS; ++v) given[v] = load(x + k * WIDE + v * LANES);
        for (int64_t r = 0; r < ROWS; ++r)
            for (int64_t v = 0; v < VECTORS; ++v) sums[r][v] += at<TRANSPOSED>(A, size, row + r, k) * given[v];
    }
    for (int64_t r = 0; r < ROWS; ++r)
        for (int64_t v = 0; v < VECTORS; ++v) {
            double* put = out + (row + r) * WIDE + v * LANES;
            store(put, SUBTRACTED ? load(put) - sums[r][v] : sums[r][v]);
        }
}

// out = A x, or out - A x; A (size, size) a triangle, x and out (size, WIDE).
template <Triangle TRIANGLE, bool TRANSPOSED, bool SUBTRACTED>
void times(const double* A, int64_t size, const double* x, double* out) {
    int64_t row = 0;
    for (; row + TALL <= size; row += TALL) tile<TALL, TRIANGLE, TRANSPOSED, SUBTRACTED>(A, size, row, x, out);
    for (; row < size; ++row) tile<1, TRIANGLE, TRANSPOSED, SUBTRACTED>(A, size, row, x, out);
}

// inverse, left: of every block (size, size), blocks that follow each other `apart` numbers away.
struct Factor {
    const double* inverse;
    int64_t inverse_apart;
    const double* left;
    int64_t left_apart, blocks, size;

    // Bring some packs of columns (blocks * size, WIDE), `apart` from each other, to (L L')^-1 of them.
    void solve(double* x, int64_t count, int64_t apart) const {
        Room<double> room(size * WIDE);
        double* own = room.data();
        const int64_t next = size * WIDE;
        for (int64_t k = 0; k < blocks; ++k)
            for (int64_t pack = 0; pack < count; ++pack) {
                double* at = x + pack * apart + k * next;
                std::copy(at, at + next, own);
                if (k) times<UPPER, false, true>(left + (k - 1) * left_apart, size, at - next, own);
                times<LOWER, false, false>(inverse + k * inverse_apart, size, own, at);
            }
        for (int64_t k = blocks - 1; k >= 0; --k)
            for (int64_t pack = 0; pack < count; ++pack) {
                double* at = x + pack * apart + k * next;
                std::copy(at, at + next, own);
                if (k + 1 < blocks) times<LOWER, true, true>(left + k * left_apart, size, at + next, own);
                times<UPPER, true, false>(inverse + k * inverse_apart, size, own, at);
            }
    }
};

}  // namespace

// Of the columns of C, in rows.
extern "C" void solve_float64(const double* inverse, int64_t inverse_apart, const double* left, int64_t left_apart,
                              int64_t blocks, int64_t size, const double* C, int64_t C_apart, int64_t columns,
                              double* out, int64_t out_apart) {
    const Factor factor{inverse, inverse_apart, left, left_apart, blocks, size};
    const int64_t rows = blocks * size, apart = rows * WIDE + LANES;
    Room<double> packed(PACKS * apart);
    for (int64_t column = 0; column < columns; column += PACKS * WIDE) {
        const int64_t packs = std::min(PACKS, (columns - column + WIDE - 1) / WIDE);
        const auto width = [&](int64_t pack) { return std::min(WIDE, columns - column - pack * WIDE); };
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t pack = 0; pack < packs; ++pack) {
                const double* own = C + row * C_apart + column + pack * WIDE;
                std::copy(own, own + width(pack), packed.data() + pack * apart + row * WIDE);
            }
        factor.solve(packed.data(), packs, apart);
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t pack = 0; pack < packs; ++pack) {
                const double* own = packed.data() + pack * apart + row * WIDE;
                std::copy(own, own + width(pack), out + row * out_apart + column + pack * WIDE);
            }
    }
}

// Of columns in packs, out of place; their squares are added to `squares` (packs, WIDE).
extern "C" void solve_packs_float64(const double* inverse, int64_t inverse_apart, const double* left,
                                    int64_t left_apart, int64_t blocks, int64_t size, const double* C, double* out,
                                    int64_t packs, int64_t apart, double* squares) {
    const Factor factor{inverse, inverse_apart, left, left_apart, blocks, size};
    for (int64_t pack = 0; pack < packs; pack += PACKS) {
        const int64_t some = std::min(PACKS, packs - pack);
        std::copy(C + pack * apart, C + (pack + some) * apart, out + pack * apart);
        factor.solve(out + pack * apart, some, apart);
        for (int64_t p = pack; p < pack + some; ++p) add_squares(out + p * apart, blocks * size, squares + p * WIDE);
    }
}
