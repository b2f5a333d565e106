// Squared errors of ridge regressions on the first numbers of all rows, from moments: L L' = S + shift, Z = L^-1 C and
// U = L^-1 R', of which only what is needed next is kept. One thread; sums in an order that depends on the sizes alone.
//
// All three are made alike, WIDE rows of them (columns of S, C, R') at a time, as a panel: number k of these rows side
// by side, then number k + 1. TALL numbers of a panel are one tile, which stays in the registers.

#include <algorithm>
#include <cmath>

#include "tile.hpp"

namespace {

static_assert(WIDE % TALL == 0 && LANES == TALL, "a panel's rows are a whole number of tiles");
constexpr int64_t AT_ONCE = 96 * 1024;  // numbers of panels that are worked on together: they stay in the second cache

// Row r of what is solved for: its number k is first[k * apart + r].
struct Given {
    const double* first;
    int64_t apart, rows;
};

struct Factor {
    int64_t size, padded;  // a multiple of TALL
    double *L, *inverse;   // panels, of which one has as many numbers as its last row; 1 / L[k][k]

    double* panel(int64_t number) const { return L + WIDE * WIDE * number * (number + 1) / 2; }

    // Numbers [TALL j, TALL (j + 1)) of the rows of a panel from `row` on, which have none before `from`. Of L itself,
    // S + shift: whether its square is positive.
    template <bool SELF>
    bool advance(const Given& given, int64_t row, int64_t from, int64_t j, double shift, double* out) {
        const int64_t k = j * TALL, at = k - row;
        const double* own = panel(k / WIDE) + k % WIDE;  // the rows of L of the same numbers
        double sums[TALL * WIDE];                        // of what is taken away, less what is given
        take(given, row, k, sums);
        if (SELF && at >= 0)
            for (int64_t c = 0; c < TALL; ++c) sums[c * WIDE + at + c] -= k + c < size ? shift : 1;
        add_product<WIDE>(own + from * WIDE, out + from * WIDE, k - from, sums);
        for (int64_t c = 0; c < TALL; ++c) {
            Vector left[VECTORS];
            for (int64_t v = 0; v < VECTORS; ++v) left[v] = load(sums + c * WIDE + v * LANES);
            for (int64_t m = 0; m < c; ++m)
                for (int64_t v = 0; v < VECTORS; ++v)
                    left[v] += own[(k + m) * WIDE + c] * load(out + (k + m) * WIDE + v * LANES);
            if (SELF && at >= 0) {
                const double square = -left[at / LANES][c];
                if (!(square > 0)) return false;
                inverse[k + c] = 1 / std::sqrt(square);
            }
            for (int64_t v = 0; v < VECTORS; ++v) store(out + (k + c) * WIDE + v * LANES, -inverse[k + c] * left[v]);
        }
        return true;
    }

    // What is given of TALL numbers of some rows, negative.
    void take(const Given& given, int64_t row, int64_t k, double* sums) const {
        const int64_t rows = std::min(given.rows - row, WIDE), there = std::min(TALL, size - k);
        if (rows < WIDE || there < TALL) std::fill(sums, sums + TALL * WIDE, 0.0);
        for (int64_t c = 0; c < there; ++c)
            for (int64_t r = 0; r < rows; ++r) sums[c * WIDE + r] = -given.first[(k + c) * given.apart + row + r];
    }

    int64_t at_once() const { return std::max(AT_ONCE / std::max(padded * WIDE, int64_t(1)), int64_t(1)); }

    bool factor(const Given& S, double shift) {
        const int64_t panels = (padded + WIDE - 1) / WIDE;
        for (int64_t first = 0; first < panels; first += at_once()) {
            const int64_t last = std::min(first + at_once(), panels), shared = first * WIDE / TALL;
            for (int64_t j = 0; j < shared; ++j)
                for (int64_t p = first; p < last; ++p) advance<true>(S, p * WIDE, 0, j, shift, panel(p));
            for (int64_t p = first; p < last; ++p)
                for (int64_t j = shared; j < std::min((p + 1) * WIDE, padded) / TALL; ++j)
                    if (!advance<true>(S, p * WIDE, 0, j, shift, panel(p))) return false;
        }
        return true;
    }

    // L^-1 of the rows of some panels, `apart` from each other; upper: number k of row r is 0 before its own, k = r.
    void solve(const Given& given, int64_t first, int64_t count, bool upper, double* out, int64_t apart) {
        for (int64_t j = upper ? first * WIDE / TALL : 0; j < padded / TALL; ++j)
            for (int64_t p = first; p < first + count; ++p) {
                const int64_t from = upper ? p * WIDE : 0;
                if (from <= j * TALL) advance<false>(given, p * WIDE, from, j, 0, out + (p - first) * apart);
            }
    }
};

struct Residuals {
    const double* c;  // (rows, targets)
    int64_t c_apart, rows, targets;
    const int64_t *edges, *last;
    double* squares;  // (edges, targets)

    // Add the squares of c - U Z at every edge: of TALL rows, which lie in a panel, and a panel of Z.
    void add(int64_t row, const double* U, int64_t column, const double* Z) const {
        const int64_t columns = std::min(WIDE, targets - column), there = std::min(TALL, rows - row);
        double left[TALL * WIDE];
        if (columns < WIDE || there < TALL) std::fill(left, left + TALL * WIDE, 0.0);
        for (int64_t r = 0; r < there; ++r)
            for (int64_t j = 0; j < columns; ++j) left[r * WIDE + j] = -c[(row + r) * c_apart + column + j];
        int64_t at = row;
        double* out = squares + column;
        for (const int64_t* edge = edges; edge < last; ++edge, out += targets) {
            if (at < *edge) {
                add_product<WIDE>(U + at * WIDE, Z + at * WIDE, *edge - at, left);
                at = *edge;
            }
            double total[WIDE] = {};
            add_squares(left, TALL, total);
            for (int64_t j = 0; j < columns; ++j) out[j] += total[j];
        }
    }
};

}  // namespace

extern "C" const int64_t wide = WIDE, tall = TALL, at_once = AT_ONCE;

// Add to `squares` (parts, edges, targets) what every part's c less its prediction is at every edge; `fine` is whether
// S + shift is positive.
//
// parts: of each where R' (size, rows) and c (rows, targets) lie, how far their rows are apart, and how many rows.
// L, inverse, Z, U: room for panels, those of Z and U `apart`, as many of U as are worked on at once.
extern "C" void errors_float64(const double* S, int64_t S_apart, const double* C, int64_t C_apart, int64_t size,
                               int64_t targets, const double* shift, const int64_t* parts, int64_t count,
                               const int64_t* edges, int64_t edge_count, double* L, double* inverse, double* Z,
                               double* U, int64_t apart, double* squares, int64_t* fine) {
    Factor factor{size, (size + TALL - 1) / TALL * TALL, L, inverse};
    *fine = factor.factor({S, S_apart, size}, *shift);
    if (!*fine) return;
    const int64_t packs = (targets + WIDE - 1) / WIDE, at_once = factor.at_once();
    for (int64_t first = 0; first < packs; first += at_once)
        factor.solve({C, C_apart, targets}, first, std::min(at_once, packs - first), false, Z + first * apart, apart);
    for (const int64_t* part = parts; part < parts + 5 * count; part += 5, squares += edge_count * targets) {
        const Given R{reinterpret_cast<const double*>(part[0]), part[1], part[4]};
        const Residuals left{
            reinterpret_cast<const double*>(part[2]), part[3], part[4], targets, edges, edges + edge_count, squares};
        for (int64_t first = 0; first * WIDE < R.rows; first += at_once) {
            const int64_t panels = std::min(at_once, (R.rows + WIDE - 1) / WIDE - first);
            factor.solve(R, first, panels, true, U, apart);
            for (int64_t pack = 0; pack < packs; ++pack)
                for (int64_t row = first * WIDE; row < std::min((first + panels) * WIDE, R.rows); row += TALL)
                    left.add(row, U + (row / WIDE - first) * apart + row % WIDE, pack * WIDE, Z + pack * apart);
        }
    }
}
