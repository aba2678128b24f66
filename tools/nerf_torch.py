"""torch's side of benchmarks/nerf.py, in an interpreter of its own: torch, nothing of Canon. NeRF's step, eagerly."""

import torch
from torch import nn
from turns import serve_torch

COARSE, FINE, NEAR, FAR = 64, 64, 2.0, 6.0


def encode(x: torch.Tensor, levels: int) -> torch.Tensor:
    return torch.cat([x] + [f(x * 2.0**n) for n in range(levels) for f in (torch.sin, torch.cos)], -1)


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = [63] + [256] * 4 + [256 + 63] + [256] * 2
        self.layers = nn.ModuleList(nn.Linear(size, 256) for size in sizes)
        self.density, self.bottleneck = nn.Linear(256, 1), nn.Linear(256, 256)
        self.view, self.colour = nn.Linear(256 + 27, 128), nn.Linear(128, 3)

    def forward(self, points, ways):
        inputs = encode(points, 10)
        h = inputs
        for i, layer in enumerate(self.layers):
            h = torch.relu(layer(h))
            if i == 4:
                h = torch.cat((inputs, h), -1)
        density = torch.relu(self.density(h))[..., 0]
        views = encode(ways / ways.norm(dim=-1, keepdim=True), 4)[:, None].expand(*points.shape[:-1], 27)
        h = torch.relu(self.view(torch.cat((self.bottleneck(h), views), -1)))
        return density, torch.sigmoid(self.colour(h))


def render(field, origins, ways, t):
    density, colour = field(origins[:, None] + t[..., None] * ways[:, None], ways)
    delta = torch.cat((t[:, 1:] - t[:, :-1], torch.full_like(t[:, :1], 1e10)), -1) * ways.norm(dim=-1, keepdim=True)
    alpha = 1 - torch.exp(-density * delta)
    kept = torch.cumprod(1 - alpha + 1e-10, -1)
    weights = alpha * torch.cat((torch.ones_like(kept[:, :1]), kept[:, :-1]), -1)
    return (weights[..., None] * colour).sum(1) + 1 - weights.sum(1, keepdim=True), weights


def resample(edges, weights, count):
    weights = weights.detach() + 1e-5
    share = torch.cumsum(weights / weights.sum(-1, keepdim=True), -1)
    share = torch.cat((torch.zeros_like(share[:, :1]), share), -1)
    u = torch.rand(len(edges), count)
    above = torch.searchsorted(share, u, right=True).clamp(1, share.shape[-1] - 1)
    low, high = share.gather(-1, above - 1), share.gather(-1, above)
    start, stop = edges.gather(-1, above - 1), edges.gather(-1, above)
    return start + (u - low) / (high - low).clamp_min(1e-5) * (stop - start)


def train(rays: int):
    coarse, fine = Field(), Field()
    optimizer = torch.optim.Adam([*coarse.parameters(), *fine.parameters()], 5e-4)
    origins = nn.functional.normalize(torch.randn(rays, 3), dim=-1) * 4
    ways, truth = -origins / 4 + 0.1 * torch.randn(rays, 3), torch.rand(rays, 3)
    even = torch.linspace(NEAR, FAR, COARSE)
    middle = (even[1:] + even[:-1]) / 2
    low, high = torch.cat((even[:1], middle)), torch.cat((middle, even[-1:]))

    def call():
        t = low + (high - low) * torch.rand(rays, COARSE)
        first, weights = render(coarse, origins, ways, t)
        drawn = resample((t[:, 1:] + t[:, :-1]) / 2, weights[:, 1:-1], FINE)
        second, _ = render(fine, origins, ways, torch.sort(torch.cat((t, drawn), -1), -1)[0])
        optimizer.zero_grad()
        ((first - truth).square().mean() + (second - truth).square().mean()).backward()
        optimizer.step()

    return call


WORKS = {f'vanilla_{rays}': lambda rays=rays: train(rays) for rays in (64, 1024)}


if __name__ == '__main__':
    serve_torch(WORKS)
