// Some rows and columns of a symmetric matrix that is kept as blocks of rows from the diagonal on, in any order. Rows
// that lie near each other are taken together: what is below the diagonal is read from one line of the cache. One
// thread.

#include <algorithm>
#include <cstdint>

namespace {

constexpr int64_t TOGETHER = 8;

}  // namespace

// `begins` has where every row of the matrix would begin, of which only what is from the diagonal on is there; `order`
// the numbers of the rows in the order of where they lie.
extern "C" void taken_float64(const double* const* begins, const int64_t* rows, const int64_t* order, int64_t count,
                              const int64_t* columns, int64_t chosen, double* out, int64_t apart) {
    for (int64_t first = 0; first < count; first += TOGETHER) {
        const int64_t together = std::min(TOGETHER, count - first);
        for (int64_t j = 0; j < chosen; ++j) {
            const int64_t column = columns[j];
            for (int64_t k = 0; k < together; ++k) {
                const int64_t to = order[first + k], row = rows[to];
                out[to * apart + j] = begins[std::min(row, column)][std::max(row, column)];
            }
        }
    }
}
