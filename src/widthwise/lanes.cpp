// Layers of one thin network, by vectors that are full. Of convolutions and batch norms they hold images: a tensor is
// [channels][height][width][images]. Of attention they hold tokens that ask. One thread; sums in an order that depends
// on the sizes alone.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif

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

template <class V, class T>
inline V load(const T* from) {
    V found;
    std::memcpy(&found, from, sizeof(V));
    return found;
}

// Hold a vector in a register: otherwise compilers read it anew from memory with every product.
template <class V>
inline void hold(V& given) {
#if defined(__x86_64__)
    if constexpr (sizeof(V) == BYTES) asm("" : "+v"(given));
#elif defined(__aarch64__)
    if constexpr (sizeof(V) == BYTES) asm("" : "+w"(given));
#endif
}

template <class V, class T>
inline void store(T* to, const V& given) {
    std::memcpy(to, &given, sizeof(V));
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

constexpr int64_t CACHE = 200000;  // bytes of a source that are kept at a time
constexpr int64_t LINE = 64;       // bytes of a line of the cache

// The rows of a source that one row of the result takes, of all channels and some images: [channels][kernel][width]
// [together], row r in slot r % kernel, each beginning a line further than a power of 2, at which caches collide.
template <class T>
struct Rows {
    const T* source;
    int64_t channels, width, images, plane, slots, together, stride;
    std::vector<T> kept;
    std::vector<int64_t> there;

    Rows(const T* source, int64_t channels, int64_t height, int64_t width, int64_t images, int64_t slots, int64_t least)
        : source(source),
          channels(channels),
          width(width),
          images(images),
          plane(height * width * images),
          slots(slots),
          there(slots, -1) {
        int64_t fit = CACHE / int64_t(sizeof(T)) / (channels * slots * width) / least * least;
        int64_t all = (images + least - 1) / least * least;
        together = fit < least ? least : fit < all ? fit : all;
        stride = width * together + LINE / sizeof(T);
        kept.assign(channels * slots * stride, T(0));
    }

    void forget() { there.assign(slots, -1); }

    // Copy a row if it is not there, and return where it begins.
    int64_t take(int64_t r, int64_t first, int64_t count) {
        int64_t begin = r % slots * stride;
        if (there[r % slots] == r) return begin;
        there[r % slots] = r;
        for (int64_t c = 0; c < channels; c++) {
            const T* from = source + c * plane + r * width * images + first;
            T* to = kept.data() + c * slots * stride + begin;
            if (count == images && count == together)
                std::memcpy(to, from, width * images * sizeof(T));
            else
                for (int64_t x = 0; x < width; x++)
                    std::memcpy(to + x * together, from + x * images, count * sizeof(T));
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
template <class T, int B, int A>
APART void vectors(const Line& rows, const Line& columns, const Rows<T>& in, int64_t first, const T* weight,
                   const T* bias, T* out, int64_t out_plane, int64_t count) {
    typedef typename Vector<T>::type V;
    constexpr int L = lanes<T, V>();
    V sum[B][A];
    for (int b = 0; b < B; b++)
        for (int a = 0; a < A; a++) sum[b][a] = V{} + (bias ? bias[b] : T(0));
    int64_t plane = in.slots * in.stride;
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
            if (count >= (a + 1) * L)
                store(out + b * out_plane + a * L, sum[b][a]);
            else
                for (int l = 0; l < count - a * L; l++) out[b * out_plane + a * L + l] = sum[b][a][l];
        }
}

template <class T, int B>
void pixel(const Line& rows, const Line& columns, const Rows<T>& in, const T* weight, const T* bias, T* out,
           int64_t out_plane, int64_t count) {
    constexpr int64_t step = A * lanes<T, typename Vector<T>::type>();
    int64_t n = 0;
    if constexpr (sizeof(typename Vector<T>::type) == 64)  // of which there are twice as many registers
        for (; n + 2 * step <= count; n += 2 * step)
            vectors<T, B, 2 * A>(rows, columns, in, n, weight, bias, out + n, out_plane, 2 * step);
    for (; n < count; n += step)
        vectors<T, B, A>(rows, columns, in, n, weight, bias, out + n, out_plane, count - n < step ? count - n : step);
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

template <class T>
void gather(const Sizes& s, const T* in, const T* weight, const T* bias, T* out, bool back) {
    int64_t rows = s.rows(), columns = s.columns();
    int64_t h = back ? s.height : rows, w = back ? s.width : columns, out_plane = h * w * s.images;
    int64_t in_h = back ? rows : s.height, in_w = back ? columns : s.width;
    int64_t sources = back ? s.outputs : s.inputs, results = back ? s.inputs : s.outputs;
    std::vector<T> weights = packed(s, weight, back);
    Rows<T> kept(in, sources, in_h, in_w, s.images, s.kernel, A * lanes<T, typename Vector<T>::type>());
    std::vector<Line> across;
    for (int64_t x = 0; x < w; x++) {
        across.push_back(line(s, x, in_w, back));
        for (int64_t& column : across.back().from) column *= kept.together;
    }
    for (int64_t n = 0; n < s.images; n += kept.together) {
        int64_t count = s.images - n < kept.together ? s.images - n : kept.together;
        kept.forget();
        for (int64_t y = 0; y < h; y++) {
            Line down = line(s, y, in_h, back);
            for (int i = 0; i < down.count; i++) down.from[i] = kept.take(down.from[i], n, count);
            for (int64_t first = 0; first < results; first += 4) {
                const T* own = weights.data() + first * s.kernel * s.kernel * sources;
                const T* b = bias ? bias + first : nullptr;
                for (int64_t x = 0; x < w; x++) {
                    T* to = out + first * out_plane + (y * w + x) * s.images + n;
                    up_to_four(results - first,
                               [&](auto B) { pixel<T, B>(down, across[x], kept, own, b, to, out_plane, count); });
                }
            }
        }
    }
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

// One kernel row i of one source and B results, over the rows [y0, y1) of the result and the images [n0, n1).
template <class T, class V, int B>
APART void kernel_row(const Sizes& s, const T* dy, const T* x, int64_t i, int64_t y0, int64_t y1, int64_t n0,
                      int64_t n1, T* sums) {
    int64_t N = s.images, columns = s.columns(), dy_plane = s.rows() * columns * N;
    for (int64_t y = y0; y < y1; y++) {
        int64_t r = y * s.stride + i - s.padding;
        if (r < 0 || r >= s.height) continue;
        const T* d = dy + y * columns * N + n0;
        const T* from = x + r * s.width * N + n0;
        if (s.kernel == 1) {
            row<T, V, B, 1>(d, dy_plane, N, from, N, s.stride * N, columns, n1 - n0, sums);
            continue;
        }
        // Columns whose three taps are all there, then the taps that the others have.
        int64_t first = (s.padding + s.stride - 1) / s.stride;
        int64_t last = (s.width - 3 + s.padding) / s.stride;
        if (last >= columns) last = columns - 1;
        if (last >= first)
            row<T, V, B, 3>(d + first * N, dy_plane, N, from + (first * s.stride - s.padding) * N, N, s.stride * N,
                            last - first + 1, n1 - n0, sums);
        for (int64_t c = 0; c < columns; c++) {
            if (c >= first && c <= last) continue;
            for (int64_t j = 0; j < 3; j++) {
                int64_t q = c * s.stride + j - s.padding;
                if (q >= 0 && q < s.width)
                    row<T, V, B, 1>(d + c * N, dy_plane, N, from + q * N, N, N, 1, n1 - n0, sums + j * lanes<T, V>());
            }
        }
    }
}

template <class T, class V, int B>
void kernel_rows(const Sizes& s, const T* dy, const T* x, int64_t o, int64_t y0, int64_t y1, int64_t n0, int64_t n1,
                 T* sums) {
    for (int64_t k = 0; k < s.inputs; k++)
        for (int64_t i = 0; i < s.kernel; i++)
            kernel_row<T, V, B>(s, dy + o * s.rows() * s.columns() * s.images, x + k * s.height * s.width * s.images, i,
                                y0, y1, n0, n1, sums + (k * s.kernel + i) * 12 * lanes<T, V>());
}

template <class T, class V>
void weights_of(const Sizes& s, const T* dy, const T* x, int64_t n0, int64_t n1, T* out) {
    constexpr int L = lanes<T, V>();
    int64_t blocks = (s.outputs + 3) / 4, each = s.inputs * s.kernel * 12;
    std::vector<T> kept(blocks * each * L, T(0));
    int64_t rows = s.rows(),
            together = 24576 / (s.columns() * s.images * 5) + 1;  // of four results and a source: cached
    for (int64_t y0 = 0; y0 < rows; y0 += together) {
        int64_t y1 = y0 + together < rows ? y0 + together : rows;
        for (int64_t f = 0; f < blocks; f++)
            up_to_four(s.outputs - 4 * f, [&](auto B) {
                kernel_rows<T, V, B>(s, dy, x, 4 * f, y0, y1, n0, n1, kept.data() + f * each * L);
            });
    }
    for (int64_t o = 0; o < s.outputs; o++)
        for (int64_t k = 0; k < s.inputs; k++)
            for (int64_t i = 0; i < s.kernel; i++)
                for (int64_t j = 0; j < s.kernel; j++) {
                    const T* from = kept.data() + ((o / 4) * each + (k * s.kernel + i) * 12 + (o % 4) * 3 + j) * L;
                    T total = 0;
                    for (int l = 0; l < L; l++) total += from[l];
                    out[((o * s.inputs + k) * s.kernel + i) * s.kernel + j] += total;
                }
}

template <class T>
void weights(const Sizes& s, const T* dy, const T* x, T* out) {
    typedef typename Vector<T>::type V;
    constexpr int L = lanes<T, V>();
    int64_t whole = s.images / L * L;
    std::memset(out, 0, s.outputs * s.inputs * s.kernel * s.kernel * sizeof(T));
    weights_of<T, V>(s, dy, x, 0, whole, out);
    if (whole < s.images) weights_of<T, typename One<T>::type>(s, dy, x, whole, s.images, out);
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

template <class T>
void normalise(const Norm& s, const T* x, const T* weight, const T* bias, const T* added, double eps, T* mean, T* var,
               T* out, double momentum, T* running_mean, T* running_var) {
    for (int64_t c = 0; c < s.channels; c++) {
        const T *from = x + c * s.count, *plus = added ? added + c * s.count : nullptr;
        T* to = out + c * s.count;
        if (!s.given) {
            moments(from, s.count, mean[c], var[c]);
            running_mean[c] += T(momentum) * (mean[c] - running_mean[c]);
            running_var[c] += T(momentum) * (var[c] * T(s.count / (s.count - 1.0)) - running_var[c]);
        }
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

// dx, dweight, dbias from dy, in two passes; `passed`, if what was added asks for it, gets its gradient, dy behind the
// ReLU. `y` says where that was 0; without it nothing was added, and x says so.
template <class T>
void normalise_back(const Norm& s, const T* dy, const T* x, const T* y, const T* weight, const T* bias, const T* mean,
                    const T* var, double eps, T* dx, T* passed, T* dweight, T* dbias) {
    for (int64_t c = 0; c < s.channels; c++) {
        const T *g = dy + c * s.count, *from = x + c * s.count, *at = y ? y + c * s.count : nullptr;
        T *to = dx + c * s.count, *kept = passed ? passed + c * s.count : at && s.relu ? to : nullptr, m = mean[c];
        Affine<T> a(weight[c], bias[c], m, var[c], eps);
        T scale = a.scale, shift = a.shift;
        bool again = s.relu && !at;  // find what is behind the ReLU again in the second pass, and keep nothing
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
        if (kept) g = kept;
        if (again)
            for (int64_t i = 0; i < s.count; i++) {
                T d = from[i] * scale + shift <= 0 ? T(0) : g[i];
                to[i] = scale * (d - level - slope * (from[i] - m));
            }
        else
            for (int64_t i = 0; i < s.count; i++) to[i] = scale * (g[i] - level - slope * (from[i] - m));
    }
}

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
    std::vector<T> asked, scores, slopes, given, found;

    void begin(int64_t count, int64_t numbers, int64_t row) {
        tokens = count, size = numbers, step = row;
        plane = (count + together - 1) / together * together;
        for (auto* kept : {&asked, &given, &found}) kept->assign(size * plane, T(0));
        scores.resize(tokens * plane), slopes.resize(tokens * plane);
    }

    void turned(const T* rows, int64_t step, T scale, std::vector<T>& into) const {
        for (int64_t i = 0; i < tokens; i++)
            for (int64_t d = 0; d < size; d++) into[d * plane + i] = rows[i * step + d] * scale;
    }

    // scores[j][i] = sum over d of rows[j][d] * in[d][i], for the tokens i of a group from `first` on.
    void against(const T* rows, const std::vector<T>& in, int64_t first, std::vector<T>& into) const {
        int64_t j = 0;
        for (; j + 4 <= tokens; j += 4)
            rows_times<T, V, 4>(rows + j * step, step, in.data() + first, plane, size, into.data() + j * plane + first,
                                plane);
        for (; j < tokens; j++)
            rows_times<T, V, 1>(rows + j * step, step, in.data() + first, plane, size, into.data() + j * plane + first,
                                plane);
    }

    // out[j][d] = sum over tokens i of left[j][i] * right[d][i].
    void along(const std::vector<T>& left, const std::vector<T>& right, T* out) const {
        int64_t j = 0;
        for (; j + 3 <= tokens; j += 3)
            products<T, V, 3>(left.data() + j * plane, right.data(), plane, size, out + j * step, step);
        for (; j < tokens; j++)
            products<T, V, 1>(left.data() + j * plane, right.data(), plane, size, out + j * step, step);
    }

    void forward(const T* q, const T* k, const T* v, T* y, int64_t y_step, T* log_sums) {
        turned(q, step, T(1 / std::sqrt(double(size))), asked);
        std::vector<T> totals(plane);
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
        std::vector<T> ends(plane, T(0)), levels(plane, T(0));
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
                                          const T* bias, const T* mean, const T* var, double eps, T* dx, T* passed,    \
                                          T* dweight, T* dbias) {                                                      \
        normalise_back<T>(*(const Norm*)sizes, dy, x, y, weight, bias, mean, var, eps, dx, passed, dweight, dbias);    \
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
