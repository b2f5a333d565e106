"""The architectures as anyone would write them for one network: the slow truth that fleets are held to."""

from itertools import pairwise

from torch import nn
from torch.nn import functional as F


class PlainPerceptron(nn.Module):
    def __init__(self, inputs, units, classes):
        super().__init__()
        pairs = pairwise([inputs, *units])
        self.hidden = nn.Sequential(*[layer for a, b in pairs for layer in (nn.Linear(a, b), nn.ReLU())])
        self.head = nn.Linear(units[-1], classes)

    def features(self, x):
        return self.hidden(x.flatten(1))

    def forward(self, x):
        return self.head(self.features(x))


class PlainBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.downsample.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class PlainResNet18(nn.Module):
    def __init__(self, channels, width, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(PlainBlock(width, width, 1), PlainBlock(width, width, 1))
        self.layer2 = nn.Sequential(PlainBlock(width, 2 * width, 2), PlainBlock(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(PlainBlock(2 * width, 4 * width, 2), PlainBlock(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(PlainBlock(4 * width, 8 * width, 2), PlainBlock(8 * width, 8 * width, 1))
        self.head = nn.Linear(8 * width, classes)

    def features(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))

    def forward(self, x):
        return self.head(self.features(x))


class PlainVGG16(nn.Module):
    def __init__(self, channels, width, classes, batch_norm):
        super().__init__()
        layers = []
        for outputs in (1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M"):
            if outputs == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            layers.append(nn.Conv2d(channels, outputs * width, 3, 1, 1))
            channels = outputs * width
            layers += [nn.BatchNorm2d(channels)] if batch_norm else []
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(8 * width, classes)

    def features(self, x):
        return self.layers(x).flatten(1)

    def forward(self, x):
        return self.head(self.features(x))


class PlainTransformer(nn.Module):
    def __init__(self, inputs, hidden, units, heads, depth, classes):
        super().__init__()
        self.project = nn.Linear(inputs, hidden)
        kind = {"dim_feedforward": units, "dropout": 0.0, "batch_first": True}
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(hidden, heads, **kind) for _ in range(depth))
        self.head = nn.Linear(hidden, classes)

    def features(self, x):
        padding = x[..., -1] <= 0
        h = self.project(x[..., :-1])
        for layer in self.layers:
            h = layer(h, src_key_padding_mask=padding)
        return h.masked_fill(padding[..., None], 0).sum(1) / (~padding).sum(1, keepdim=True)

    def forward(self, x):
        return self.head(self.features(x))
