// The stem and the residual blocks of one thin network as one operator: relu(norm(convolution(x))), then of every block
// relu(norm(convolution(relu(norm(convolution(x))))) + x), where a shortcut norm(convolution(x)) may stand for the last
// x; the means of the last block's channels, an affine map of them to classes, the cross entropy; and back.
//
// A number that is written to memory and read again costs as much as a dozen products. So what two layers do to the
// same row is done to it at once: a convolution sums its results for the batch norm behind it, takes its rows through
// the norm and the ReLU before it, and on the way back masks its gradients by the ReLU before it and sums them for its
// norm.

#include "lanes.hpp"

namespace {

// A convolution and the batch norm behind it.
template <class T>
struct Layer {
    Sizes s;
    T *weight, *scale, *bias, *dweight, *dscale, *dbias;  // parameters and their gradients
    T *running_mean, *running_var;
    T *between, *mean, *var;  // what is between the two, of every channel, and its moments

    int64_t plane() const { return s.rows() * s.columns() * s.images; }

    Affine<T> affine(int64_t c, double eps) const { return {scale[c], bias[c], mean[c], var[c], eps}; }
};

template <class T>
std::vector<Affine<T>> affines(const Layer<T>& layer, double eps) {
    std::vector<Affine<T>> found;
    for (int64_t c = 0; c < layer.s.outputs; c++) found.push_back(layer.affine(c, eps));
    return found;
}

// Where some images of a row lie among those of a plane: of each pixel `count`, `step` apart.
struct Span {
    int64_t from, pixels, step, count;

    // Call f(first, count) of what lies in one piece: the row, or each pixel.
    template <class F>
    void pieces(F f) const {
        if (count == step)
            f(from, pixels * count);
        else
            for (int64_t p = 0; p < pixels; p++) f(from + p * step, count);
    }
};

// The mean and the variance of a layer's results, summed about the mean of the row that comes first: few digits cancel,
// since of n rows that lies within sqrt(n) deviations of the mean of all (a row of some of the images counts as one).
template <class T>
struct Moments {
    Layer<T>& layer;
    std::vector<T> level;
    std::vector<double> away, squares;

    Moments(Layer<T>& layer) : layer(layer), away(layer.s.outputs), squares(layer.s.outputs) {}

    void add(int64_t y, int64_t n, int64_t count) {
        const int64_t columns = layer.s.columns(), images = layer.s.images;
        const Span span{y * columns * images + n, columns, images, count};
        if (level.empty())
            for (int64_t c = 0; c < layer.s.outputs; c++) {
                const T* from = layer.between + c * layer.plane();
                double total[1] = {};
                span.pieces([&](int64_t at, int64_t some) {
                    sums<T>(some, total, [&](int64_t i, auto& sum) {
                        sum[0] += load<std::decay_t<decltype(sum[0])>>(from + at + i);
                    });
                });
                level.push_back(T(total[0] / (columns * count)));
            }
        for (int64_t c = 0; c < layer.s.outputs; c++) {
            const T *from = layer.between + c * layer.plane(), about = level[c];
            double total[2] = {};
            span.pieces([&](int64_t at, int64_t some) {
                sums<T>(some, total, [&](int64_t i, auto& sum) {
                    auto d = load<std::decay_t<decltype(sum[0])>>(from + at + i) - about;
                    sum[0] += d;
                    sum[1] += d * d;
                });
            });
            away[c] += total[0], squares[c] += total[1];
        }
    }

    void end(double momentum) {
        const double count = layer.plane();
        for (int64_t c = 0; c < layer.s.outputs; c++) {
            settle(level[c], away[c], squares[c], count, layer.mean[c], layer.var[c]);
            follow(layer.mean[c], layer.var[c], count, momentum, layer.running_mean[c], layer.running_var[c]);
        }
    }
};

// What is behind a norm, what is added and the ReLU, made from what is between; written down where `y` is.
template <class T>
struct Behind {
    const T* between;
    int64_t plane;
    std::vector<Affine<T>> own, other;  // other: of what is added, if it is a shortcut's
    const T* added;
    T* y;

    Behind(const Layer<T>& layer, double eps, const T* added, const Layer<T>* shortcut, T* y)
        : between(layer.between), plane(layer.plane()), own(affines(layer, eps)), added(added), y(y) {
        if (shortcut) this->added = shortcut->between, other = affines(*shortcut, eps);
    }

    void put(int64_t c, int64_t at, int64_t count, T* to) const {
        const T *from = between + c * plane + at, *plus = added ? added + c * plane + at : nullptr;
        const T scale = own[c].scale, shift = own[c].shift;
        if (!plus)
            for (int64_t i = 0; i < count; i++) {
                T v = from[i] * scale + shift;
                to[i] = v < 0 ? T(0) : v;
            }
        else if (other.empty())
            for (int64_t i = 0; i < count; i++) {
                T v = from[i] * scale + shift + plus[i];
                to[i] = v < 0 ? T(0) : v;
            }
        else {
            const T by = other[c].scale, to_it = other[c].shift;
            for (int64_t i = 0; i < count; i++) {
                T v = from[i] * scale + shift + (plus[i] * by + to_it);
                to[i] = v < 0 ? T(0) : v;
            }
        }
        if (y) std::memcpy(y + c * plane + at, to, count * sizeof(T));
    }
};

// A gradient behind one norm, or two that were added, and a ReLU: masked row by row as it is written, and summed for
// them.
template <class T>
struct Masked {
    T* g;
    const T* y;  // what is behind the ReLU; null where `own` says it
    const Layer<T>*own, *other;
    std::vector<Affine<T>> affine;
    std::vector<double> all, along, across;  // sums of g, and of g (between - mean) of both

    Masked(T* g, const T* y, const Layer<T>& own, const Layer<T>* other, double eps)
        : g(g), y(y), own(&own), other(other), affine(affines(own, eps)) {
        for (auto* sums : {&all, &along, &across}) sums->assign(own.s.outputs, 0);
    }

    // Row r of some images.
    void add(int64_t r, int64_t n, int64_t count) {
        const int64_t columns = own->s.columns(), images = own->s.images;
        const Span span{r * columns * images + n, columns, images, count};
        for (int64_t c = 0; c < own->s.outputs; c++)
            if (other)
                channel<true, true>(c, span);
            else if (y)
                channel<true, false>(c, span);
            else
                channel<false, false>(c, span);
    }

    // Channel c of it: masked by y, or by what is behind the norm; summed for one norm, or two.
    template <bool THERE, bool TWO>
    void channel(int64_t c, const Span& span) {
        const int64_t begin = c * own->plane();
        const T *from = g + begin, *x = own->between + begin, mean = own->mean[c];
        const T *over = THERE ? y + begin : nullptr, *z = TWO ? other->between + begin : nullptr;
        const T scale = affine[c].scale, shift = affine[c].shift, level = TWO ? other->mean[c] : T(0);
        T* to = g + begin;
        double total[2 + TWO] = {};
        span.pieces([&](int64_t at, int64_t some) {
            sums<T>(some, total, [&](int64_t i, auto& sum) {
                typedef std::decay_t<decltype(sum[0])> W;
                W d = load<W>(from + at + i), v = load<W>(x + at + i);
                if constexpr (THERE)
                    d = load<W>(over + at + i) <= T(0) ? W{} : d;
                else
                    d = v * scale + shift <= T(0) ? W{} : d;
                store(to + at + i, d);
                sum[0] += d;
                sum[1] += d * (v - mean);
                if constexpr (TWO) sum[2] += d * (load<W>(z + at + i) - level);
            });
        });
        all[c] += total[0], along[c] += total[1];
        if constexpr (TWO) across[c] += total[2];
    }
};

// The gradient between a convolution and its norm, of a masked gradient behind that.
template <class T>
struct Slopes {
    struct One {
        T scale, mean, level, slope;
    };
    const T *g, *between;
    int64_t plane;
    std::vector<One> each;

    Slopes(const Layer<T>& layer, const T* g, const std::vector<double>& all, const std::vector<double>& along,
           double eps)
        : g(g), between(layer.between), plane(layer.plane()) {
        for (int64_t c = 0; c < layer.s.outputs; c++) {
            Affine<T> a = layer.affine(c, eps);
            layer.dbias[c] = T(all[c]);
            layer.dscale[c] = T(along[c] * a.deviation);
            each.push_back(
                {a.scale, layer.mean[c], T(all[c] / plane), T(along[c] * a.deviation * a.deviation / plane)});
        }
    }

    void put(int64_t c, int64_t at, int64_t count, T* to) const {
        const T *d = g + c * plane + at, *x = between + c * plane + at;
        const One own = each[c];
        for (int64_t i = 0; i < count; i++) to[i] = own.scale * (d[i] - own.level - own.slope * (x[i] - own.mean));
    }
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

// The way back through a layer: rows of the gradient between its two parts are made as they are needed, and never
// written down. To dx, which is left out where it is null, something may be added; done(y, n, count) hears of each row
// of it.
template <class T, class X, class Done>
void back(const Layer<T>& layer, const Slopes<T>& between, X x, const T* added, T* dx, Done done) {
    const Sizes& s = layer.s;
    Gather<T> all(s, layer.weight, nullptr, added, dx, true);
    Rows<T, Slopes<T>> kept(between, s.outputs, all.in_width, s.images, s.kernel, Gather<T>::LEAST);
    Kernels<T> kernels(s);
    const int64_t together = std::min(kept.together, x.together());
    for (int64_t n = 0; n < s.images; n += together) {
        int64_t count = std::min(s.images - n, together), next = 0;
        kept.forget(), x.forget();
        for (int64_t r = 0; r < all.in_height; r++) {
            kept.take(r, n, count);
            kernels.add(kept.places(), x.rows(r, n, count), r, count);
            // Rows of dx that take none behind this one.
            int64_t end = r + 1 == all.in_height ? s.height : (r + 1) * s.stride - s.padding;
            for (; dx && next < std::min(end, s.height); next++) {
                all.row(kept, next, n, count);
                done(next, n, count);
            }
        }
    }
    kernels.put(layer.dweight);
}

template <class T>
struct Block {
    Layer<T> first, second, shortcut;
    bool projected;  // whether there is a shortcut
    T* y;

    const Layer<T>* beside() const { return projected ? &shortcut : nullptr; }
};

// The affine map behind the means, and the mean cross entropy of its results.
template <class T>
struct Head {
    int64_t inputs, outputs;
    T *weight, *bias, *dweight, *dbias;

    // Of features [images][inputs] and classes: their gradient in place of them, the parameters' gradients, the mean
    // loss, and how many images have their class's result as the largest. A NaN is the largest.
    void learn(T* features, const int64_t* targets, int64_t images, double& loss, int64_t& hits) const {
        std::vector<T> results(outputs), sums(inputs);
        std::fill(dweight, dweight + outputs * inputs, T(0)), std::fill(dbias, dbias + outputs, T(0));
        loss = 0, hits = 0;
        for (int64_t n = 0; n < images; n++) {
            T* own = features + n * inputs;
            int64_t largest = 0;
            for (int64_t k = 0; k < outputs; k++) {
                T sum = bias[k];
                for (int64_t c = 0; c < inputs; c++) sum += weight[k * inputs + c] * own[c];
                results[k] = sum;
                if (results[largest] == results[largest] && !(sum <= results[largest])) largest = k;
            }
            const T top = results[largest], given = results[targets[n]];
            T total = 0;
            for (T& x : results) total += x = std::exp(x - top);
            loss += std::log(total) - (given - top);
            hits += largest == targets[n];
            std::fill(sums.begin(), sums.end(), T(0));
            for (int64_t k = 0; k < outputs; k++) {
                const T d = (results[k] / total - T(k == targets[n])) / images;
                dbias[k] += d;
                for (int64_t c = 0; c < inputs; c++) {
                    dweight[k * inputs + c] += d * own[c];
                    sums[c] += d * weight[k * inputs + c];
                }
            }
            std::copy(sums.begin(), sums.end(), own);
        }
        loss /= images;
    }
};

// A network: where its numbers lie in memory that is given. `sizes` are those of the stem, then of every block's
// layers; `projected` says of every block whether it has a shortcut.
template <class T>
struct Network {
    Layer<T> stem;
    std::vector<Block<T>> blocks;
    T *first, *gradients[2], *hidden, *beside;  // first: what is behind the stem; the others are for the way back
    int64_t used = 0;
    T* room;

    T* take(int64_t count) {
        T* found = room ? room + used : nullptr;
        used += (count + 15) / 16 * 16 + BEYOND / int64_t(sizeof(T));  // so that no two begin alike
        return found;
    }

    void place(Layer<T>& layer, const Sizes*& sizes) {
        layer.s = *sizes++;
        layer.between = take(layer.s.outputs * layer.plane());
        layer.mean = take(layer.s.outputs), layer.var = take(layer.s.outputs);
    }

    Network(const Sizes* sizes, const int64_t* projected, int64_t count, T* room) : blocks(count), room(room) {
        place(stem, sizes);
        int64_t largest = stem.s.outputs * stem.plane(), within = 0, given = 0;
        first = take(largest);
        for (int64_t k = 0; k < count; k++) {
            Block<T>& b = blocks[k];
            b.projected = projected[k];
            place(b.first, sizes), place(b.second, sizes);
            if (b.projected) place(b.shortcut, sizes);
            int64_t all = b.second.s.outputs * b.second.plane();
            b.y = take(all);
            largest = std::max(largest, all);
            within = std::max(within, b.first.s.outputs * b.first.plane());
            if (b.projected)
                given = std::max(given, b.first.s.inputs * b.first.s.height * b.first.s.width * b.first.s.images);
        }
        for (T*& g : gradients) g = take(largest);
        hidden = take(within), beside = take(given);
    }

    // Pointers to the parameters of every layer, in the order of the sizes.
    template <class F>
    void layers(F f) {
        f(stem);
        for (Block<T>& b : blocks) {
            f(b.first), f(b.second);
            if (b.projected) f(b.shortcut);
        }
    }

    template <class Source>
    void convolve(Layer<T>& layer, const Source& source, double momentum) {
        Gather<T> all(layer.s, layer.weight, nullptr, nullptr, layer.between, false);
        Moments<T> moments(layer);
        gather(all, source, [&](int64_t y, int64_t n, int64_t count) { moments.add(y, n, count); });
        moments.end(momentum);
    }

    void forward(const T* x, T* out, double momentum, double eps) {
        convolve(stem, Plain<T>{x, stem.s.height * stem.s.width * stem.s.images}, momentum);
        Behind<T> before(stem, eps, nullptr, nullptr, first);
        T* y = first;
        for (Block<T>& b : blocks) {
            convolve(b.first, before, momentum);
            if (b.projected)
                convolve(b.shortcut, Plain<T>{y, b.first.s.height * b.first.s.width * b.first.s.images}, momentum);
            convolve(b.second, Behind<T>(b.first, eps, nullptr, nullptr, nullptr), momentum);
            before = Behind<T>(b.second, eps, b.projected ? nullptr : y, b.beside(), b.y);
            y = b.y;
        }
        const Sizes& last = blocks.back().second.s;
        const int64_t pixels = last.rows() * last.columns();
        std::vector<T> total;
        before.y = nullptr;
        for (int64_t c = 0; c < last.outputs; c++) {
            T* own = y + c * before.plane;
            before.put(c, 0, before.plane, own);
            total.assign(last.images, 0);
            for (int64_t p = 0; p < pixels; p++)
                for (int64_t n = 0; n < last.images; n++) total[n] += own[p * last.images + n];
            for (int64_t n = 0; n < last.images; n++) out[n * last.outputs + c] = total[n] / pixels;
        }
    }

    // One step's gradients; running moments move by the momentum.
    void learn(Head<T> head, const T* x, const int64_t* targets, double momentum, double eps, double& loss,
               int64_t& hits) {
        const Sizes& last = blocks.back().second.s;
        head.inputs = last.outputs;
        std::vector<T> means(last.images * last.outputs);
        forward(x, means.data(), momentum, eps);
        head.learn(means.data(), targets, last.images, loss, hits);
        backward(x, means.data(), eps);
    }

    void backward(const T* x, const T* dout, double eps) {
        const auto nothing = [](int64_t, int64_t, int64_t) {};
        const int64_t count = blocks.size();
        Block<T>& last = blocks.back();
        const Sizes& s = last.second.s;
        const int64_t pixels = s.rows() * s.columns();
        for (int64_t c = 0; c < s.outputs; c++) {
            T* own = gradients[0] + c * last.second.plane();
            for (int64_t n = 0; n < s.images; n++) own[n] = dout[n * s.outputs + c] / pixels;
            for (int64_t p = 1; p < pixels; p++) std::memcpy(own + p * s.images, own, s.images * sizeof(T));
        }
        Masked<T> masked(gradients[0], last.y, last.second, last.beside(), eps);
        for (int64_t r = 0; r < s.rows(); r++) masked.add(r, 0, s.images);
        for (int64_t k = count - 1; k >= 0; k--) {
            Block<T>& b = blocks[k];
            const T *y = k ? blocks[k - 1].y : first, *added = masked.g;
            if (b.projected) {
                Slopes<T> slopes(b.shortcut, masked.g, masked.all, masked.across, eps);
                back(b.shortcut, slopes, There<T>{b.shortcut.s, y}, (const T*)nullptr, beside, nothing);
                added = beside;
            }
            Slopes<T> second(b.second, masked.g, masked.all, masked.along, eps);
            Masked<T> inner(hidden, nullptr, b.first, nullptr, eps);
            const Behind<T> again(b.first, eps, nullptr, nullptr, nullptr);
            Again<T, Behind<T>> took{
                b.second.s,
                {again, b.second.s.inputs, b.second.s.width, b.second.s.images, b.second.s.kernel, Gather<T>::LEAST}};
            back(b.second, second, std::move(took), (const T*)nullptr, hidden,
                 [&](int64_t r, int64_t n, int64_t some) { inner.add(r, n, some); });
            Slopes<T> slopes(b.first, hidden, inner.all, inner.along, eps);
            T* to = gradients[(count - k) % 2];
            Masked<T> outer = k ? Masked<T>(to, y, blocks[k - 1].second, blocks[k - 1].beside(), eps)
                                : Masked<T>(to, y, stem, nullptr, eps);
            back(b.first, slopes, There<T>{b.first.s, y}, added, to,
                 [&](int64_t r, int64_t n, int64_t some) { outer.add(r, n, some); });
            masked = std::move(outer);
        }
        Slopes<T> slopes(stem, masked.g, masked.all, masked.along, eps);
        back(stem, slopes, There<T>{stem.s, x}, (const T*)nullptr, (T*)nullptr, nothing);
    }
};

}  // namespace

// `needed` is how many numbers of room there must be. `given`: of every layer weight, scale and bias, their gradients,
// running mean and variance, how many batches moved them; of the head weight and bias and their gradients.
#define EXPORT(T, name)                                                                                            \
    extern "C" void needed_##name(const int64_t* sizes, const int64_t* projected, int64_t count, int64_t* found) { \
        *found = Network<T>((const Sizes*)sizes, projected, count, nullptr).used;                                  \
    }                                                                                                              \
    extern "C" void learn_##name(const int64_t* sizes, const int64_t* projected, int64_t count, int64_t classes,   \
                                 T* room, void** given, double momentum, double eps, const T* x,                   \
                                 const int64_t* targets, double* loss, int64_t* hits) {                            \
        Network<T> network((const Sizes*)sizes, projected, count, room);                                           \
        network.layers([&](Layer<T>& l) {                                                                          \
            for (T** own :                                                                                         \
                 {&l.weight, &l.scale, &l.bias, &l.dweight, &l.dscale, &l.dbias, &l.running_mean, &l.running_var}) \
                *own = (T*)*given++;                                                                               \
            ++*(int64_t*)*given++;                                                                                 \
        });                                                                                                        \
        Head<T> head{0, classes, (T*)given[0], (T*)given[1], (T*)given[2], (T*)given[3]};                          \
        network.learn(head, x, targets, momentum, eps, *loss, *hits);                                              \
    }

EXPORT(float, float32)
EXPORT(double, float64)
