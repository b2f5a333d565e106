// Layers of one thin network, by vectors that are full. Of convolutions and batch norms they hold images: a tensor is
// [channels][height][width][images]. Of attention they hold tokens that ask. One thread; sums in an order that depends
// on the sizes alone.

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "vectors.hpp"

namespace {

template <class T>
struct Vector;
template <>
struct Vector<float> {
    typedef float type __attribute__((vector_size(BYTES)));
};
template <>
struct Vector<double> {
    typedef double type __attribute__((vector_size(BYTES)));
};

// One image at a time: what is left where images do not fill a vector.
template <class T>
struct One {
    typedef T type __attribute__((vector_size(sizeof(T))));
};

template <class T, class V>
constexpr int lanes() {
    return sizeof(V) / sizeof(T);
}

struct Sizes {
    int64_t inputs, outputs, height, width, images, kernel, stride, padding;

    int64_t rows() const { return (height + 2 * padding - kernel) / stride + 1; }  // of the result
    int64_t columns() const { return (width + 2 * padding - kernel) / stride + 1; }
};

// A function of its own: within a larger one compilers keep its sums in memory, three times as slow.
#define APART __attribute__((noinline))

// Call f with a constant of 1 to 4: as many results as there are, four at most, so that their sums are registers.
template <class F>
inline void up_to_four(int64_t count, F f) {
    if (count >= 4)
        f(std::integral_constant<int, 4>());
    else if (count == 3)
        f(std::integral_constant<int, 3>());
    else if (count == 2)
        f(std::integral_constant<int, 2>());
    else
        f(std::integral_constant<int, 1>());
}

// The rows (or columns) of a source that one row of the result takes, and with which row of the kernel.
struct Line {
    int64_t from[3], tap[3];
    int count;
};

// Forward, row y of the result takes rows stride * y + tap - padding of the source. Backward, row y of the source was
// taken by every row r of the result with stride * r + tap - padding = y.
inline Line line(const Sizes& s, int64_t y, int64_t sources, bool back) {
    Line found{{}, {}, 0};
    for (int64_t k = 0; k < s.kernel; k++) {
        int64_t i = back ? s.kernel - 1 - k : k;  // so that rows of the source come in order
        int64_t r = back ? y + s.padding - i : y * s.stride + i - s.padding;
        if (back && (r < 0 || r % s.stride)) continue;
        if (back) r /= s.stride;
        if (r < 0 || r >= sources) continue;
        found.from[found.count] = r;
        found.tap[found.count++] = i;
    }
    return found;
}

constexpr int64_t CACHE = 200000;     // bytes of a source that are kept at a time
constexpr int64_t BEYOND = 5 * LINE;  // bytes by which a row begins further than a power of 2, at which caches collide

// Numbers of a source where they lie: [channels][...], as many in each channel.
template <class T>
struct Plain {
    const T* numbers;
    int64_t plane;

    void put(int64_t channel, int64_t at, int64_t count, T* to) const {
        std::memcpy(to, numbers + channel * plane + at, count * sizeof(T));
    }
};

// Where rows lie: pixels of a row `step` apart; of those that are kept, row r in slot r % slots.
template <class T>
struct Places {
    const T* numbers;
    int64_t plane, row, step, slots;

    const T* at(int64_t channel, int64_t r) const { return numbers + channel * plane + (slots ? r % slots : r) * row; }
};

// The rows of a source that one row of the result takes, of all channels and some images: [channels][kernel][width]
// [together], row r in slot r % kernel. The source puts them there: `Plain` copies.
template <class T, class Source>
struct Rows {
    const Source& source;
    int64_t channels, width, images, slots, together, stride;
    Room<T> kept;
    std::vector<int64_t> there;

    Rows(const Source& source, int64_t channels, int64_t width, int64_t images, int64_t slots, int64_t least)
        : source(source), channels(channels), width(width), images(images), slots(slots), there(slots, -1) {
        int64_t fit = CACHE / int64_t(sizeof(T)) / (channels * slots * width) / least * least;
        int64_t all = (images + least - 1) / least * least;
        together = fit < least ? least : fit < all ? fit : all;
        stride = width * together + BEYOND / sizeof(T);
        kept.assign(channels * slots * stride, T(0));
    }

    int64_t plane() const { return slots * stride; }

    Places<T> places() const { return {kept.data(), plane(), stride, together, slots}; }

    void forget() { there.assign(slots, -1); }

    // Put a row there if it is not, and return where it begins.
    int64_t take(int64_t r, int64_t first, int64_t count) {
        int64_t begin = r % slots * stride, at = r * width * images + first;
        if (there[r % slots] == r) return begin;
        there[r % slots] = r;
        for (int64_t c = 0; c < channels; c++) {
            T* to = kept.data() + c * plane() + begin;
            if (count == images && count == together)
                source.put(c, at, width * images, to);
            else
                for (int64_t x = 0; x < width; x++) source.put(c, at + x * images, count, to + x * together);
        }
        return begin;
    }
};

constexpr int A = 2;  // vectors of images that are computed together

// sum[b] += weight of (source k, result b) * in[k], for K sources and B results.
template <class T, class V, int B, int K, int A>
inline void accumulate(const T* in, int64_t plane, const T* weight, int64_t of_source, int64_t of_result,
                       V (&sum)[B][A]) {
    for (int k = 0; k < K; k++) {
        V x[A];
        for (int a = 0; a < A; a++) x[a] = load<V>(in + k * plane + a * lanes<T, V>()), hold(x[a]);
        for (int b = 0; b < B; b++)
            for (int a = 0; a < A; a++) sum[b][a] += weight[k * of_source + b * of_result] * x[a];
    }
}

// out[c] = sum over taps and sources of weight * in, for B channels c of the result and A vectors of images.
template <class T, int B, int A, class In>
APART void vectors(const Line& rows, const Line& columns, const In& in, int64_t first, const T* weight, const T* bias,
                   const T* added, T* out, int64_t out_plane, int64_t count) {
    typedef typename Vector<T>::type V;
    constexpr int L = lanes<T, V>();
    V sum[B][A];
    for (int b = 0; b < B; b++)
        for (int a = 0; a < A; a++) sum[b][a] = V{} + (bias ? bias[b] : T(0));
    int64_t plane = in.plane();
    for (int i = 0; i < rows.count; i++)
        for (int j = 0; j < columns.count; j++) {
            const T* p = in.kept.data() + rows.from[i] + columns.from[j] + first;
            const T* w = weight + (rows.tap[i] * in.slots + columns.tap[j]) * in.channels * B;
            int64_t k = 0;
            for (; k + 4 <= in.channels; k += 4, p += 4 * plane, w += 4 * B)
                accumulate<T, V, B, 4>(p, plane, w, B, 1, sum);
            for (; k < in.channels; k++, p += plane, w += B) accumulate<T, V, B, 1>(p, plane, w, B, 1, sum);
        }
    for (int b = 0; b < B; b++)
        for (int a = 0; a < A; a++) {
            int64_t at = b * out_plane + a * L;
            if (count >= (a + 1) * L)
                store(out + at, added ? sum[b][a] + load<V>(added + at) : sum[b][a]);
            else
                for (int l = 0; l < count - a * L; l++)
                    out[at + l] = added ? sum[b][a][l] + added[at + l] : sum[b][a][l];
        }
}

template <class T, int B, class In>
void pixel(const Line& rows, const Line& columns, const In& in, const T* weight, const T* bias, const T* added, T* out,
           int64_t out_plane, int64_t count) {
    const auto plus = [&](int64_t n) { return added ? added + n : nullptr; };
    constexpr int64_t step = A * lanes<T, typename Vector<T>::type>();
    int64_t n = 0;
    if constexpr (sizeof(typename Vector<T>::type) == 64)  // of which there are twice as many registers
        for (; n + 2 * step <= count; n += 2 * step)
            vectors<T, B, 2 * A>(rows, columns, in, n, weight, bias, plus(n), out + n, out_plane, 2 * step);
    for (; n < count; n += step)
        vectors<T, B, A>(rows, columns, in, n, weight, bias, plus(n), out + n, out_plane,
                         count - n < step ? count - n : step);
}

// The weights of each four results, packed as [tap][source][four]; results and sources change places on the way back.
template <class T>
std::vector<T> packed(const Sizes& s, const T* weight, bool back) {
    int64_t area = s.kernel * s.kernel, sources = back ? s.outputs : s.inputs, results = back ? s.inputs : s.outputs;
    std::vector<T> found(area * sources * results);
    T* into = found.data();
    for (int64_t first = 0; first < results; first += 4)
        for (int64_t t = 0; t < area; t++)
            for (int64_t k = 0; k < sources; k++)
                for (int64_t c = first; c < results && c < first + 4; c++)
                    *into++ = weight[((back ? k : c) * s.inputs + (back ? c : k)) * area + t];
    return found;
}

// A convolution, or its way back to the source, row by row.
template <class T>
struct Gather {
    static constexpr int64_t LEAST = A * lanes<T, typename Vector<T>::type>();  // images that are computed together

    Sizes s;
    bool back;
    const T *bias, *added;  // a number of every result; numbers as many as there are results
    T* out;
    int64_t in_height, in_width, height, width, sources, results, out_plane;
    std::vector<T> weights;
    std::vector<Line> across;

    Gather(const Sizes& s, const T* weight, const T* bias, const T* added, T* out, bool back)
        : s(s), back(back), bias(bias), added(added), out(out) {
        int64_t rows = s.rows(), columns = s.columns();
        in_height = back ? rows : s.height, in_width = back ? columns : s.width;
        height = back ? s.height : rows, width = back ? s.width : columns;
        sources = back ? s.outputs : s.inputs, results = back ? s.inputs : s.outputs;
        out_plane = height * width * s.images;
        weights = packed(s, weight, back);
    }

    // Row y of the result, of the images [n, n + count).
    template <class In>
    void row(In& in, int64_t y, int64_t n, int64_t count) {
        if (across.empty())
            for (int64_t x = 0; x < width; x++) {
                across.push_back(line(s, x, in_width, back));
                for (int64_t& column : across.back().from) column *= in.together;
            }
        Line down = line(s, y, in_height, back);
        for (int i = 0; i < down.count; i++) down.from[i] = in.take(down.from[i], n, count);
        for (int64_t first = 0; first < results; first += 4) {
            const T* own = weights.data() + first * s.kernel * s.kernel * sources;
            const T* b = bias ? bias + first : nullptr;
            for (int64_t x = 0; x < width; x++) {
                int64_t at = first * out_plane + (y * width + x) * s.images + n;
                const T* plus = added ? added + at : nullptr;
                up_to_four(results - first,
                           [&](auto B) { pixel<T, B>(down, across[x], in, own, b, plus, out + at, out_plane, count); });
            }
        }
    }
};

template <class T, class Source>
void gather(Gather<T>& all, const Source& source) {
    const Sizes& s = all.s;
    Rows<T, Source> kept(source, all.sources, all.in_width, s.images, s.kernel, Gather<T>::LEAST);
    for (int64_t n = 0; n < s.images; n += kept.together) {
        int64_t count = std::min(s.images - n, kept.together);
        kept.forget();
        for (int64_t y = 0; y < all.height; y++) all.row(kept, y, n, count);
    }
}

template <class T>
void gather(const Sizes& s, const T* in, const T* weight, const T* bias, T* out, bool back) {
    Gather<T> all(s, weight, bias, nullptr, out, back);
    gather(all, Plain<T>{in, all.in_height * all.in_width * s.images});
}

// sums[b][j] += dy[b] * x[j] over neighbouring pixels of the result and some images, for B results and J taps in a row.
template <class T, class V, int B, int J>
inline void row(const T* dy, int64_t dy_plane, int64_t dy_step, const T* x, int64_t tap, int64_t x_step, int64_t pixels,
                int64_t images, T* sums) {
    constexpr int L = lanes<T, V>();
    V sum[B][J];
    for (int b = 0; b < B; b++)
        for (int j = 0; j < J; j++) sum[b][j] = load<V>(sums + (b * 3 + j) * L);
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t n = 0; n + L <= images; n += L) {
            V v[J];
            for (int j = 0; j < J; j++) v[j] = load<V>(x + p * x_step + j * tap + n), hold(v[j]);
            for (int b = 0; b < B; b++) {
                V d = load<V>(dy + b * dy_plane + p * dy_step + n);
                hold(d);
                for (int j = 0; j < J; j++) sum[b][j] += d * v[j];
            }
        }
    for (int b = 0; b < B; b++)
        for (int j = 0; j < J; j++) store(sums + (b * 3 + j) * L, sum[b][j]);
}

// One kernel row i of source k and B results from o on, over the rows [y0, y1) of the result and `count` images.
template <class T, class V, int B>
APART void kernel_row(const Sizes& s, const Places<T>& dy, int64_t o, const Places<T>& x, int64_t k, int64_t i,
                      int64_t y0, int64_t y1, int64_t count, T* sums) {
    int64_t N = x.step, columns = s.columns();
    for (int64_t y = y0; y < y1; y++) {
        int64_t r = y * s.stride + i - s.padding;
        if (r < 0 || r >= s.height) continue;
        const T *d = dy.at(o, y), *from = x.at(k, r);
        if (s.kernel == 1) {
            row<T, V, B, 1>(d, dy.plane, dy.step, from, N, s.stride * N, columns, count, sums);
            continue;
        }
        // Columns whose three taps are all there, then the taps that the others have.
        int64_t first = (s.padding + s.stride - 1) / s.stride;
        int64_t last = (s.width - 3 + s.padding) / s.stride;
        if (last >= columns) last = columns - 1;
        if (last >= first)
            row<T, V, B, 3>(d + first * dy.step, dy.plane, dy.step, from + (first * s.stride - s.padding) * N, N,
                            s.stride * N, last - first + 1, count, sums);
        for (int64_t c = 0; c < columns; c++) {
            if (c >= first && c <= last) continue;
            for (int64_t j = 0; j < 3; j++) {
                int64_t q = c * s.stride + j - s.padding;
                if (q >= 0 && q < s.width)
                    row<T, V, B, 1>(d + c * dy.step, dy.plane, dy.step, from + q * N, N, N, 1, count,
                                    sums + j * lanes<T, V>());
            }
        }
    }
}

// The gradient of a kernel, a vector of sums for each number of it: four results at a time, whatever is left of four.
template <class T, class V>
struct Kernel {
    static constexpr int L = lanes<T, V>();

    const Sizes& s;
    int64_t each;
    Room<T> sums;

    Kernel(const Sizes& s) : s(s), each(s.inputs * s.kernel * 12) { sums.assign((s.outputs + 3) / 4 * each * L, T(0)); }

    // Over the rows [y0, y1) of the result and `count` images.
    void add(const Places<T>& dy, const Places<T>& x, int64_t y0, int64_t y1, int64_t count) {
        if (!count) return;
        if (sums.empty()) sums.assign((s.outputs + 3) / 4 * each * L, T(0));
        for (int64_t o = 0; o < s.outputs; o += 4)
            up_to_four(s.outputs - o, [&](auto B) {
                for (int64_t k = 0; k < s.inputs; k++)
                    for (int64_t i = 0; i < s.kernel; i++)
                        kernel_row<T, V, B>(s, dy, o, x, k, i, y0, y1, count,
                                            sums.data() + o / 4 * each * L + (k * s.kernel + i) * 12 * L);
            });
    }

    void put(T* out) const {
        if (sums.empty()) return;
        for (int64_t o = 0; o < s.outputs; o++)
            for (int64_t k = 0; k < s.inputs; k++)
                for (int64_t i = 0; i < s.kernel; i++)
                    for (int64_t j = 0; j < s.kernel; j++) {
                        const T* from = sums.data() + ((o / 4) * each + (k * s.kernel + i) * 12 + (o % 4) * 3 + j) * L;
                        T total = 0;
                        for (int l = 0; l < L; l++) total += from[l];
                        out[((o * s.inputs + k) * s.kernel + i) * s.kernel + j] += total;
                    }
    }
};

// Both kinds of sums: of whole vectors of images, and of those that fill none.
template <class T>
struct Kernels {
    typedef typename Vector<T>::type V;

    Kernel<T, V> whole;
    Kernel<T, typename One<T>::type> rest;

    Kernels(const Sizes& s) : whole(s), rest(s) {}

    void add(const Places<T>& dy, const Places<T>& x, int64_t y0, int64_t y1, int64_t count) {
        int64_t most = count / lanes<T, V>() * lanes<T, V>();
        whole.add(dy, x, y0, y1, most);
        Places<T> dy_left = dy, x_left = x;
        dy_left.numbers += most, x_left.numbers += most;
        rest.add(dy_left, x_left, y0, y1, count - most);
    }

    void put(T* out) const {
        std::memset(out, 0, whole.s.outputs * whole.s.inputs * whole.s.kernel * whole.s.kernel * sizeof(T));
        whole.put(out);
        rest.put(out);
    }
};

// Planes of rows side by side, as tensors have them.
template <class T>
Places<T> planes(const T* numbers, int64_t rows, int64_t columns, int64_t images) {
    return {numbers, rows * columns * images, columns * images, images, 0};
}

template <class T>
void weights(const Sizes& s, const T* dy, const T* x, T* out) {
    Kernels<T> kernels(s);
    int64_t rows = s.rows(), columns = s.columns();
    int64_t together = 24576 / (columns * s.images * 5) + 1;  // of four results and a source: cached
    for (int64_t y = 0; y < rows; y += together)
        kernels.add(planes(dy, rows, columns, s.images), planes(x, s.height, s.width, s.images), y,
                    std::min(y + together, rows), s.images);
    kernels.put(out);
}

// Batch norm, of one channel at a time: what is added and the ReLU behind are of the same pass ------------------

template <class V>
inline auto across(const V& v) {
    auto total = v[0];
    for (int l = 1; l < int(sizeof(V) / sizeof(v[0])); l++) total += v[l];
    return total;
}

struct Norm {
    int64_t channels, count, relu, given;
};

// The sums of f(i) over count numbers, of each of two terms: f gives vectors, or one number where those do not fill.
// Every few thousand numbers are one sum, and the sums of them are added in double precision.
template <class T, class F>
inline void sums(int64_t count, double (&total)[2], F f) {
    typedef typename Vector<T>::type V;
    typedef typename One<T>::type S;
    constexpr int L = lanes<T, V>();
    total[0] = total[1] = 0;
    int64_t i = 0;
    while (i + L <= count) {
        int64_t end = i + 256 * L < count ? i + 256 * L : count;
        V even[2] = {V{}, V{}}, odd[2] = {V{}, V{}};
        for (; i + 2 * L <= end; i += 2 * L) {
            f(i, even);
            f(i + L, odd);
        }
        for (; i + L <= end; i += L) f(i, even);
        for (int k = 0; k < 2; k++) total[k] += across(even[k] + odd[k]);
    }
    S rest[2] = {S{}, S{}};
    for (; i < count; i++) f(i, rest);
    for (int k = 0; k < 2; k++) total[k] += rest[k][0];
}

// The mean and the variance of count numbers, in one pass about the mean of every 16th vector of them. That lies within
// four deviations of the mean of all, whatever the numbers are, so next to no digits cancel.
template <class T>
void moments(const T* x, int64_t count, T& mean, T& var) {
    typedef typename Vector<T>::type V;
    constexpr int L = lanes<T, V>();
    double total[2], about = 0;
    int64_t taken = 0;
    for (int64_t i = 0; i + L <= count; i += 16 * L, taken += L) about += across(load<V>(x + i));
    T level = taken ? T(about / taken) : x[0];
    sums<T>(count, total, [&](int64_t i, auto& sum) {
        auto d = load<std::decay_t<decltype(sum[0])>>(x + i) - level;
        sum[0] += d;
        sum[1] += d * d;
    });
    double away = total[0] / count, spread = total[1] / count - away * away;
    mean = T(level + away);
    var = T(spread < 0 ? 0 : spread);
}

// y = x * scale + shift of a channel, before what is added and the ReLU.
template <class T>
struct Affine {
    T deviation, scale, shift;  // deviation: 1 / sqrt(var + eps)

    Affine(T weight, T bias, T mean, T var, double eps)
        : deviation(T(1 / std::sqrt(double(var) + eps))), scale(weight * deviation), shift(bias - mean * scale) {}
};

// The mean and the variance of channel c, and those that move by the momentum.
template <class T>
void statistics(const Norm& s, int64_t c, const T* x, T* mean, T* var, double momentum, T* running_mean,
                T* running_var) {
    moments(x + c * s.count, s.count, mean[c], var[c]);
    running_mean[c] += T(momentum) * (mean[c] - running_mean[c]);
    running_var[c] += T(momentum) * (var[c] * T(s.count / (s.count - 1.0)) - running_var[c]);
}

template <class T>
void normalise(const Norm& s, const T* x, const T* weight, const T* bias, const T* added, double eps, T* mean, T* var,
               T* out, double momentum, T* running_mean, T* running_var) {
    for (int64_t c = 0; c < s.channels; c++) {
        const T *from = x + c * s.count, *plus = added ? added + c * s.count : nullptr;
        T* to = out + c * s.count;
        if (!s.given) statistics(s, c, x, mean, var, momentum, running_mean, running_var);
        Affine<T> a(weight[c], bias[c], mean[c], var[c], eps);
        T scale = a.scale, shift = a.shift;
        if (plus && s.relu)
            for (int64_t i = 0; i < s.count; i++) {
                T y = from[i] * scale + shift + plus[i];
                to[i] = y < 0 ? T(0) : y;
            }
        else if (plus)
            for (int64_t i = 0; i < s.count; i++) to[i] = from[i] * scale + shift + plus[i];
        else if (s.relu)
            for (int64_t i = 0; i < s.count; i++) {
                T y = from[i] * scale + shift;
                to[i] = y < 0 ? T(0) : y;
            }
        else
            for (int64_t i = 0; i < s.count; i++) to[i] = from[i] * scale + shift;
    }
}

// The gradient of x behind a batch norm: g is what came back, masked where the ReLU or y says so.
template <class T>
struct Slope {
    const T *g, *x, *y;  // y, if there: where it is 0 the ReLU let nothing through
    bool again;          // find what is behind the ReLU again, from x
    T scale, shift, mean, level, slope;

    void put(int64_t at, int64_t count, T* to) const {
        const T *d = g + at, *from = x + at, *over = y ? y + at : nullptr;
        if (again)
            for (int64_t i = 0; i < count; i++) {
                T own = from[i] * scale + shift <= 0 ? T(0) : d[i];
                to[i] = scale * (own - level - slope * (from[i] - mean));
            }
        else if (over)
            for (int64_t i = 0; i < count; i++) {
                T own = over[i] <= 0 ? T(0) : d[i];
                to[i] = scale * (own - level - slope * (from[i] - mean));
            }
        else
            for (int64_t i = 0; i < count; i++) to[i] = scale * (d[i] - level - slope * (from[i] - mean));
    }
};

// A batch norm's way back: dweight and dbias from dy by one pass over every channel, after which dx is `Slope`'s.
// `passed`, if what was added asks for it, gets its gradient, dy behind the ReLU. `y` says where that was 0; without it
// nothing was added, and x says so.
template <class T>
struct NormBack {
    const Norm& s;
    const T *dy, *x, *y, *weight, *bias, *mean, *var;
    double eps;
    T *passed, *dweight, *dbias;

    Slope<T> slope(int64_t c) const {
        const T *g = dy + c * s.count, *from = x + c * s.count, *at = y ? y + c * s.count : nullptr;
        T *kept = passed ? passed + c * s.count : nullptr, m = mean[c];
        Affine<T> a(weight[c], bias[c], m, var[c], eps);
        T scale = a.scale, shift = a.shift;
        bool again = s.relu && !at;
        double total[2];
        sums<T>(s.count, total, [&](int64_t i, auto& sum) {
            typedef std::decay_t<decltype(sum[0])> W;
            W d = load<W>(g + i), v = load<W>(from + i);
            if (again)
                d = v * scale + shift <= T(0) ? W{} : d;
            else if (s.relu)
                d = load<W>(at + i) <= T(0) ? W{} : d;
            if (kept) store(kept + i, d);
            sum[0] += d;
            sum[1] += d * (v - m);
        });
        dbias[c] = T(total[0]);
        dweight[c] = T(total[1] * a.deviation);
        T level = T(total[0] / s.count), slope = T(total[1] * a.deviation * a.deviation / s.count);
        if (kept) return {kept, from, nullptr, false, scale, shift, m, level, slope};
        return {g, from, s.relu ? at : nullptr, again, scale, shift, m, level, slope};
    }
};

template <class T>
void normalise_back(const NormBack<T>& norm, T* dx) {
    for (int64_t c = 0; c < norm.s.channels; c++) norm.slope(c).put(0, norm.s.count, dx + c * norm.s.count);
}

// Those of all channels.
template <class T>
struct Slopes {
    std::vector<Slope<T>> each;

    Slopes(const NormBack<T>& norm) {
        for (int64_t c = 0; c < norm.s.channels; c++) each.push_back(norm.slope(c));
    }

    void put(int64_t channel, int64_t at, int64_t count, T* to) const { each[channel].put(at, count, to); }
};

// What a convolution took, as its kernel's gradient wants it: a tensor that is there.
template <class T>
struct There {
    const Sizes& s;
    const T* x;

    int64_t together() const { return s.images; }

    void forget() {}

    Places<T> rows(int64_t, int64_t n, int64_t) { return planes(x + n, s.height, s.width, s.images); }
};

// Or one whose rows are made again.
template <class T, class Source>
struct Again {
    const Sizes& s;
    Rows<T, Source> kept;

    int64_t together() const { return kept.together; }

    void forget() { kept.forget(); }

    Places<T> rows(int64_t y, int64_t n, int64_t count) {
        for (int64_t i = 0, r = y * s.stride - s.padding; i < s.kernel; i++, r++)
            if (r >= 0 && r < s.height) kept.take(r, n, count);
        return kept.places();
    }
};

// The way back through a batch norm and the convolution before it: rows of the gradient between them are made as they
// are needed, and never written down. To dx, which is left out where it is null, something may be added.
template <class T, class X>
void convolve_back(const Sizes& s, const NormBack<T>& norm, X x, const T* weight, const T* added, T* dx, T* dweight) {
    Slopes<T> between(norm);
    Gather<T> all(s, weight, nullptr, added, dx, true);
    Rows<T, Slopes<T>> kept(between, s.outputs, all.in_width, s.images, s.kernel, Gather<T>::LEAST);
    Kernels<T> kernels(s);
    const int64_t together = std::min(kept.together, x.together());
    for (int64_t n = 0; n < s.images; n += together) {
        int64_t count = std::min(s.images - n, together), next = 0;
        kept.forget(), x.forget();
        for (int64_t r = 0; r < all.in_height; r++) {
            kept.take(r, n, count);
            kernels.add(kept.places(), x.rows(r, n, count), r, r + 1, count);
            // Rows of dx that take none behind this one.
            int64_t end = r + 1 == all.in_height ? s.height : (r + 1) * s.stride - s.padding;
            for (; dx && next < std::min(end, s.height); next++) all.row(kept, next, n, count);
        }
    }
    kernels.put(dweight);
}

// Two convolutions with their batch norms, a ReLU behind each, and what is added before the second of these ----------

// A convolution's weight, its batch norm's parameters, and what is between them, with its mean and variance.
template <class T>
struct Layer {
    T *weight, *running_mean, *running_var, *scale, *bias, *between, *mean, *var;

    Norm norm(const Sizes& s) const { return {s.outputs, s.rows() * s.columns() * s.images, 1, 0}; }
};

template <class T>
struct Gradients {
    T *weight, *scale, *bias;
};

// What is behind a layer, found again from what is between.
template <class T>
struct Normed {
    const T* between;
    int64_t plane;
    std::vector<Affine<T>> each;

    Normed(const Norm& s, const Layer<T>& layer, double eps) : between(layer.between), plane(s.count) {
        for (int64_t c = 0; c < s.channels; c++)
            each.emplace_back(layer.scale[c], layer.bias[c], layer.mean[c], layer.var[c], eps);
    }

    void put(int64_t channel, int64_t at, int64_t count, T* to) const {
        const T *from = between + channel * plane + at, scale = each[channel].scale, shift = each[channel].shift;
        for (int64_t i = 0; i < count; i++) {
            T y = from[i] * scale + shift;
            to[i] = y < 0 ? T(0) : y;
        }
    }
};

// The first layer's result is never written down. `added` is x itself where no other is given.
template <class T>
struct Residual {
    T *x, *added;
    Layer<T> first, second;
    T* y;

    void forward(const Sizes& a, const Sizes& b, double momentum, double eps) const {
        const Norm norm = first.norm(a);
        gather<T>(a, x, first.weight, nullptr, first.between, false);
        for (int64_t c = 0; c < a.outputs; c++)
            statistics(norm, c, first.between, first.mean, first.var, momentum, first.running_mean, first.running_var);
        Gather<T> all(b, second.weight, nullptr, nullptr, second.between, false);
        gather(all, Normed<T>(norm, first, eps));
        normalise<T>(second.norm(b), second.between, second.scale, second.bias, added ? added : x, eps, second.mean,
                     second.var, y, momentum, second.running_mean, second.running_var);
    }
};

template <class T>
struct ResidualBack {
    Residual<T> there;
    T *dy, *dx, *passed, *hidden;  // hidden: the gradient of the first layer's result
    Gradients<T> first, second;

    NormBack<T> norm(const Norm& s, const Layer<T>& l, const Gradients<T>& g, const T* given, const T* y, T* kept,
                     double eps) const {
        return {s, given, l.between, y, l.scale, l.bias, l.mean, l.var, eps, kept, g.scale, g.bias};
    }

    void back(const Sizes& a, const Sizes& b, double eps) const {
        const Layer<T>&one = there.first, &two = there.second;
        const Norm before = one.norm(a), behind = two.norm(b);
        const Normed<T> again(before, one, eps);
        Again<T, Normed<T>> x{b, {again, b.inputs, b.width, b.images, b.kernel, Gather<T>::LEAST}};
        convolve_back(b, norm(behind, two, second, dy, there.y, passed, eps), std::move(x), two.weight,
                      (const T*)nullptr, hidden, second.weight);
        convolve_back(a, norm(before, one, first, hidden, nullptr, nullptr, eps), There<T>{a, there.x}, one.weight,
                      there.added ? nullptr : passed, dx, first.weight);
    }
};

// Attention of texts that lie end to end, a token's queries, keys and values of all heads side by side ----------

struct Texts {
    int64_t texts, heads, size;
};

inline Vector<float>::type exponential(Vector<float>::type x) {  // the coefficients of Cephes' expf
    typedef Vector<float>::type V;
    typedef int32_t I __attribute__((vector_size(BYTES)));
    x = x < -87.0f ? V{} - 87.0f : x;           // so that NaN stays NaN
    V shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the last bits are the rounded whole number
    V whole = shifted - 12582912.0f;
    V r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    V p = V{} + 1.9875691500e-4f;
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = p * r + c;
    I bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4B400000 + 127) << 23;
    V power;
    std::memcpy(&power, &bits, sizeof power);
    return (p * r * r + r + 1.0f) * power;
}

inline Vector<double>::type exponential(Vector<double>::type x) {
    for (int l = 0; l < int(sizeof(x) / sizeof(double)); l++) x[l] = std::exp(x[l]);
    return x;
}

// out[b] = sum over d of rows[b][d] * in[d], for B rows.
template <class T, class V, int B>
inline void rows_times(const T* rows, int64_t step, const T* in, int64_t plane, int64_t size, T* out,
                       int64_t out_plane) {
    V sum[B][A] = {};
    for (int64_t d = 0; d < size; d++) accumulate<T, V, B, 1>(in + d * plane, plane, rows + d, 0, step, sum);
    for (int b = 0; b < B; b++)
        for (int a = 0; a < A; a++) store(out + b * out_plane + a * lanes<T, V>(), sum[b][a]);
}

// out[d] = sum over j of rows[j][d] * in[j], for the `size` numbers of each of `count` rows.
template <class T, class V>
inline void sum_of_rows(const T* rows, int64_t step, const T* in, int64_t plane, int64_t count, int64_t size, T* out) {
    for (int64_t d = 0; d < size; d += 4)
        up_to_four(size - d, [&](auto B) {
            V sum[B][A] = {};
            for (int64_t j = 0; j < count; j++)
                accumulate<T, V, B, 1>(in + j * plane, plane, rows + j * step + d, 0, 1, sum);
            for (int b = 0; b < B; b++)
                for (int a = 0; a < A; a++) store(out + (d + b) * plane + a * lanes<T, V>(), sum[b][a]);
        });
}

// out[j][d] = sum over i of left[j][i] * right[d][i], for i in whole vectors, J rows on the left and B on the right.
template <class T, class V, int J, int B>
inline void products(const T* left, const T* right, int64_t plane, T* out, int64_t step) {
    V sum[J][B];
    for (int j = 0; j < J; j++)
        for (int b = 0; b < B; b++) sum[j][b] = V{};
    for (int64_t i = 0; i < plane; i += lanes<T, V>()) {
        V x[J];
        for (int j = 0; j < J; j++) x[j] = load<V>(left + j * plane + i), hold(x[j]);
        for (int b = 0; b < B; b++) {
            V y = load<V>(right + b * plane + i);
            hold(y);
            for (int j = 0; j < J; j++) sum[j][b] += x[j] * y;
        }
    }
    for (int j = 0; j < J; j++)
        for (int b = 0; b < B; b++) out[j * step + b] = across(sum[j][b]);
}

template <class T, class V, int J>
inline void products(const T* left, const T* right, int64_t plane, int64_t size, T* out, int64_t step) {
    int64_t d = 0;
    for (; d + 4 <= size; d += 4) products<T, V, J, 4>(left, right + d * plane, plane, out + d, step);
    for (; d < size; d++) products<T, V, J, 1>(left, right + d * plane, plane, out + d, step);
}

// One head of one text: what is kept of it while it is computed, tokens that ask in the lanes.
template <class T>
struct Head {
    typedef typename Vector<T>::type V;
    static constexpr int L = lanes<T, V>(), together = A * L;
    int64_t tokens, plane, size, step;
    Room<T> asked, scores, slopes, given, found;

    void begin(int64_t count, int64_t numbers, int64_t row) {
        tokens = count, size = numbers, step = row;
        plane = (count + together - 1) / together * together;
        for (auto* kept : {&asked, &given, &found}) kept->assign(size * plane, T(0));
        scores.resize(tokens * plane), slopes.resize(tokens * plane);
    }

    void turned(const T* rows, int64_t step, T scale, Room<T>& into) const {
        for (int64_t i = 0; i < tokens; i++)
            for (int64_t d = 0; d < size; d++) into[d * plane + i] = rows[i * step + d] * scale;
    }

    // scores[j][i] = sum over d of rows[j][d] * in[d][i], for the tokens i of a group from `first` on.
    void against(const T* rows, const Room<T>& in, int64_t first, Room<T>& into) const {
        int64_t j = 0;
        for (; j + 4 <= tokens; j += 4)
            rows_times<T, V, 4>(rows + j * step, step, in.data() + first, plane, size, into.data() + j * plane + first,
                                plane);
        for (; j < tokens; j++)
            rows_times<T, V, 1>(rows + j * step, step, in.data() + first, plane, size, into.data() + j * plane + first,
                                plane);
    }

    // out[j][d] = sum over tokens i of left[j][i] * right[d][i].
    void along(const Room<T>& left, const Room<T>& right, T* out) const {
        int64_t j = 0;
        for (; j + 3 <= tokens; j += 3)
            products<T, V, 3>(left.data() + j * plane, right.data(), plane, size, out + j * step, step);
        for (; j < tokens; j++)
            products<T, V, 1>(left.data() + j * plane, right.data(), plane, size, out + j * step, step);
    }

    void forward(const T* q, const T* k, const T* v, T* y, int64_t y_step, T* log_sums) {
        turned(q, step, T(1 / std::sqrt(double(size))), asked);
        Room<T> totals(plane);
        for (int64_t first = 0; first < plane; first += together) {
            against(k, asked, first, scores);
            for (int a = 0; a < A; a++) {
                T* own = scores.data() + first + a * L;
                V most = load<V>(own), sum = V{};
                for (int64_t j = 1; j < tokens; j++) {
                    V s = load<V>(own + j * plane);
                    most = s > most ? s : most;
                }
                for (int64_t j = 0; j < tokens; j++) {
                    V p = exponential(load<V>(own + j * plane) - most);
                    sum += p;
                    store(own + j * plane, p);
                }
                store(totals.data() + first + a * L, sum);
                for (int l = 0; l < L && first + a * L + l < tokens; l++)
                    log_sums[first + a * L + l] = most[l] + std::log(sum[l]);
            }
            sum_of_rows<T, V>(v, step, scores.data() + first, plane, tokens, size, found.data() + first);
        }
        for (int64_t i = 0; i < tokens; i++)
            for (int64_t d = 0; d < size; d++) y[i * y_step + d] = found[d * plane + i] / totals[i];
    }

    void backward(const T* q, const T* k, const T* v, const T* y, const T* dy, int64_t y_step, const T* log_sums, T* dq,
                  T* dk, T* dv) {
        T scale = T(1 / std::sqrt(double(size)));
        turned(q, step, scale, asked);
        turned(dy, y_step, T(1), given);
        Room<T> ends(plane, T(0)), levels(plane, T(0));
        for (int64_t i = 0; i < tokens; i++) {
            ends[i] = log_sums[i];
            for (int64_t d = 0; d < size; d++) levels[i] += dy[i * y_step + d] * y[i * y_step + d];
        }
        for (int64_t first = 0; first < plane; first += together) {
            against(k, asked, first, scores);
            against(v, given, first, slopes);
            for (int64_t j = 0; j < tokens; j++)
                for (int a = 0; a < A; a++) {
                    int64_t at = j * plane + first + a * L;
                    V p = exponential(load<V>(scores.data() + at) - load<V>(ends.data() + first + a * L));
                    V slope = p * (load<V>(slopes.data() + at) - load<V>(levels.data() + first + a * L));
                    store(scores.data() + at, p), store(slopes.data() + at, slope);
                }
            sum_of_rows<T, V>(k, step, slopes.data() + first, plane, tokens, size, found.data() + first);
        }
        for (int64_t i = 0; i < tokens; i++)
            for (int64_t d = 0; d < size; d++) dq[i * step + d] = found[d * plane + i] * scale;
        along(slopes, asked, dk);
        along(scores, given, dv);
    }
};

// mixed is [tokens][queries, keys, values][heads][size], y [tokens][heads][size], log_sums [heads][tokens].
template <class T>
void attend(const Texts& s, const int64_t* starts, const T* mixed, T* y, T* log_sums, const T* dy, T* dmixed) {
    Head<T> head;
    int64_t units = s.heads * s.size, step = 3 * units, all = starts[s.texts];
    for (int64_t t = 0; t < s.texts; t++)
        for (int64_t h = 0; h < s.heads && starts[t + 1] > starts[t]; h++) {
            int64_t from = starts[t] * step + h * s.size, to = starts[t] * units + h * s.size;
            const T *q = mixed + from, *k = q + units, *v = k + units;
            T* ends = log_sums + h * all + starts[t];
            head.begin(starts[t + 1] - starts[t], s.size, step);
            if (dmixed) {
                T* dq = dmixed + from;
                head.backward(q, k, v, y + to, dy + to, units, ends, dq, dq + units, dq + 2 * units);
            } else
                head.forward(q, k, v, y + to, units, ends);
        }
}

}  // namespace

#define EXPORT(T, name)                                                                                                \
    extern "C" void gather_##name(const int64_t* sizes, const T* in, const T* weight, const T* bias, T* out,           \
                                  int64_t back) {                                                                      \
        gather<T>(*(const Sizes*)sizes, in, weight, bias, out, back);                                                  \
    }                                                                                                                  \
    extern "C" void weights_##name(const int64_t* sizes, const T* dy, const T* x, T* out) {                            \
        weights<T>(*(const Sizes*)sizes, dy, x, out);                                                                  \
    }                                                                                                                  \
    extern "C" void normalise_##name(const int64_t* sizes, const T* x, const T* weight, const T* bias, const T* added, \
                                     double eps, T* mean, T* var, T* out, double momentum, T* running_mean,            \
                                     T* running_var) {                                                                 \
        normalise<T>(*(const Norm*)sizes, x, weight, bias, added, eps, mean, var, out, momentum, running_mean,         \
                     running_var);                                                                                     \
    }                                                                                                                  \
    extern "C" void normalise_back_##name(const int64_t* sizes, const T* dy, const T* x, const T* y, const T* weight,  \
                                          const T* bias, const T* mean, const T* var, double eps, T* passed,           \
                                          T* dweight, T* dbias, T* dx) {                                               \
        normalise_back<T>({*(const Norm*)sizes, dy, x, y, weight, bias, mean, var, eps, passed, dweight, dbias}, dx);  \
    }                                                                                                                  \
    extern "C" void convolve_back_##name(                                                                              \
        const int64_t* sizes, const T* dy, const T* between, const T* y, const T* scale, const T* bias, const T* mean, \
        const T* var, double eps, T* passed, T* dscale, T* dbias, const T* x, const T* weight, T* dx, T* dweight) {    \
        const Sizes& s = *(const Sizes*)sizes;                                                                         \
        const Norm norm{s.outputs, s.rows() * s.columns() * s.images, sizes[8], 0};                                    \
        const NormBack<T> way{norm, dy, between, y, scale, bias, mean, var, eps, passed, dscale, dbias};               \
        convolve_back<T>(s, way, There<T>{s, x}, weight, nullptr, dx, dweight);                                        \
    }                                                                                                                  \
    extern "C" void residual_##name(const int64_t* sizes, const void* given, double momentum, double eps) {            \
        ((const Residual<T>*)given)->forward(((const Sizes*)sizes)[0], ((const Sizes*)sizes)[1], momentum, eps);       \
    }                                                                                                                  \
    extern "C" void residual_back_##name(const int64_t* sizes, const void* given, double eps) {                        \
        ((const ResidualBack<T>*)given)->back(((const Sizes*)sizes)[0], ((const Sizes*)sizes)[1], eps);                \
    }

#define EXPORT_ATTENTION(T, name)                                                                                 \
    extern "C" void attend_##name(const int64_t* sizes, const int64_t* starts, const T* mixed, T* y, T* log_sums, \
                                  const T* dy, T* dmixed) {                                                       \
        attend<T>(*(const Texts*)sizes, starts, mixed, y, log_sums, dy, dmixed);                                  \
    }

EXPORT_ATTENTION(float, float32)
EXPORT_ATTENTION(double, float64)
EXPORT(float, float32)
EXPORT(double, float64)
