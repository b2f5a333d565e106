// (L L')^-1 C for a block bidiagonal L, given by the inverses of the blocks on its diagonal, which are lower
// triangular, and the blocks below it, which are upper triangular: forward through the blocks, then back, for a few
// columns of C at a time, which the first cache holds. Half of every block is zero and left out. One thread; sums in an
// order that depends on the blocks alone.

#include <algorithm>
#include <vector>

#include "tile.hpp"

namespace {

constexpr int64_t BESIDE = LANES == 8 ? 4 : 2;  // vectors of a tile, whose sums fill the registers with 6 rows
constexpr int64_t COLUMNS = LANES * BESIDE;
constexpr int64_t PANEL = 64;  // columns that go through all blocks together

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
    for (int64_t column = 0; column < PANEL; column += COLUMNS) {
        Vector sums[ROWS][BESIDE] = {};
        for (int64_t k = first; k < last; ++k) {
            Vector given[BESIDE];
            for (int64_t v = 0; v < BESIDE; ++v) given[v] = load(x + k * PANEL + column + v * LANES);
            for (int64_t r = 0; r < ROWS; ++r)
                for (int64_t v = 0; v < BESIDE; ++v) sums[r][v] += at<TRANSPOSED>(A, size, row + r, k) * given[v];
        }
        for (int64_t r = 0; r < ROWS; ++r)
            for (int64_t v = 0; v < BESIDE; ++v) {
                double* put = out + (row + r) * PANEL + column + v * LANES;
                store(put, SUBTRACTED ? load(put) - sums[r][v] : sums[r][v]);
            }
    }
}

// out = A x, or out - A x; A (size, size) a triangle, x and out (size, PANEL).
template <Triangle TRIANGLE, bool TRANSPOSED, bool SUBTRACTED>
void times(const double* A, int64_t size, const double* x, double* out) {
    int64_t row = 0;
    for (; row + 6 <= size; row += 6) tile<6, TRIANGLE, TRANSPOSED, SUBTRACTED>(A, size, row, x, out);
    for (; row + 4 <= size; row += 4) tile<4, TRIANGLE, TRANSPOSED, SUBTRACTED>(A, size, row, x, out);
    for (; row < size; ++row) tile<1, TRIANGLE, TRANSPOSED, SUBTRACTED>(A, size, row, x, out);
}

// Rows of some columns, side by side in `to`, with zeros up to PANEL; and back.
void gather(const double* from, int64_t apart, int64_t rows, int64_t columns, double* to) {
    for (int64_t r = 0; r < rows; ++r) {
        std::copy(from + r * apart, from + r * apart + columns, to + r * PANEL);
        std::fill(to + r * PANEL + columns, to + (r + 1) * PANEL, 0.0);
    }
}

void scatter(const double* from, int64_t rows, int64_t columns, double* to, int64_t apart) {
    for (int64_t r = 0; r < rows; ++r) std::copy(from + r * PANEL, from + r * PANEL + columns, to + r * apart);
}

}  // namespace

// inverse, left: of every block (size, size), blocks that follow each other `apart` numbers away.
extern "C" void solve_float64(const double* inverse, int64_t inverse_apart, const double* left, int64_t left_apart,
                              int64_t blocks, int64_t size, const double* C, int64_t C_apart, int64_t columns,
                              double* out, int64_t out_apart) {
    std::vector<double> room(3 * size * PANEL);
    double *own = room.data(), *solved = own + size * PANEL, *beside = solved + size * PANEL;
    for (int64_t column = 0; column < columns; column += PANEL) {
        const int64_t width = std::min(PANEL, columns - column);
        for (int64_t k = 0; k < blocks; ++k) {
            gather(C + k * size * C_apart + column, C_apart, size, width, own);
            if (k) times<UPPER, false, true>(left + (k - 1) * left_apart, size, beside, own);
            times<LOWER, false, false>(inverse + k * inverse_apart, size, own, solved);
            if (k + 1 < blocks) scatter(solved, size, width, out + k * size * out_apart + column, out_apart);
            std::swap(solved, beside);
        }
        for (int64_t k = blocks - 1; k >= 0; --k) {
            if (k + 1 < blocks) {
                gather(out + k * size * out_apart + column, out_apart, size, width, own);
                times<LOWER, true, true>(left + k * left_apart, size, beside, own);
            } else {
                std::swap(own, beside);
            }
            times<UPPER, true, false>(inverse + k * inverse_apart, size, own, solved);
            scatter(solved, size, width, out + k * size * out_apart + column, out_apart);
            std::swap(solved, beside);
        }
    }
}
