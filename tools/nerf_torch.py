"""Torch's side of benchmarks/nerf.py: a step of NeRF in eager mode. It needs torch, and imports nothing of Canon."""

import torch
from torch import nn
from turns import form, serve_torch

COARSE, FINE, NEAR, FAR = 64, 64, 2.0, 6.0


def encode(x: torch.Tensor, levels: int) -> torch.Tensor:
    """Returns the positional encoding (NeRF, eq. 4)."""
    return torch.cat([x] + [f(x * 2.0**n) for n in range(levels) for f in (torch.sin, torch.cos)], -1)


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = [63] + [256] * 4 + [256 + 63] + [256] * 2
        self.layers = nn.ModuleList(nn.Linear(size, 256) for size in sizes)
        self.density, self.bottleneck = nn.Linear(256, 1), nn.Linear(256, 256)
        self.view, self.colour = nn.Linear(256 + 27, 128), nn.Linear(128, 3)

    def forward(self, points, directions):
        inputs = encode(points, 10)
        h = inputs
        for i, layer in enumerate(self.layers):
            h = torch.relu(layer(h))
            if i == 4:
                h = torch.cat((inputs, h), -1)
        density = torch.relu(self.density(h))[..., 0]
        views = encode(directions / directions.norm(dim=-1, keepdim=True), 4)[:, None].expand(*points.shape[:-1], 27)
        h = torch.relu(self.view(torch.cat((self.bottleneck(h), views), -1)))
        return density, torch.sigmoid(self.colour(h))


def render(field, origins, directions, t):
    """Returns colours on white and weights of the samples at distances t [B, N] (NeRF, eq. 3)."""
    density, colour = field(origins[:, None] + t[..., None] * directions[:, None], directions)
    delta = torch.cat((t[:, 1:] - t[:, :-1], torch.full_like(t[:, :1], 1e10)), -1) * directions.norm(
        dim=-1, keepdim=True
    )
    alpha = 1 - torch.exp(-density * delta)
    transmittance = torch.cumprod(1 - alpha + 1e-10, -1)
    weights = alpha * torch.cat((torch.ones_like(transmittance[:, :1]), transmittance[:, :-1]), -1)
    return (weights[..., None] * colour).sum(1) + 1 - weights.sum(1, keepdim=True), weights


def resample(edges, weights, count):
    """Draws distances from the piecewise-constant density of the weights (NeRF, section 5.2)."""
    weights = weights.detach() + 1e-5
    cdf = torch.cumsum(weights / weights.sum(-1, keepdim=True), -1)
    cdf = torch.cat((torch.zeros_like(cdf[:, :1]), cdf), -1)
    u = torch.rand(len(edges), count)
    above = torch.searchsorted(cdf, u, right=True).clamp(1, cdf.shape[-1] - 1)
    low, high = cdf.gather(-1, above - 1), cdf.gather(-1, above)
    start, stop = edges.gather(-1, above - 1), edges.gather(-1, above)
    return start + (u - low) / (high - low).clamp_min(1e-5) * (stop - start)


def train(rays: int):
    """Returns a call that makes one step on random rays."""
    coarse, fine = form(Field()), form(Field())
    optimizer = torch.optim.Adam([*coarse.parameters(), *fine.parameters()], 5e-4)
    origins = nn.functional.normalize(torch.randn(rays, 3), dim=-1) * 4
    directions, truth = -origins / 4 + 0.1 * torch.randn(rays, 3), torch.rand(rays, 3)
    even = torch.linspace(NEAR, FAR, COARSE)
    middle = (even[1:] + even[:-1]) / 2
    low, high = torch.cat((even[:1], middle)), torch.cat((middle, even[-1:]))

    def call():
        t = low + (high - low) * torch.rand(rays, COARSE)
        first, weights = render(coarse, origins, directions, t)
        samples = resample((t[:, 1:] + t[:, :-1]) / 2, weights[:, 1:-1], FINE)
        second, _ = render(fine, origins, directions, torch.sort(torch.cat((t, samples), -1), -1)[0])
        optimizer.zero_grad()
        ((first - truth).square().mean() + (second - truth).square().mean()).backward()
        optimizer.step()

    return call


WORKS = {f'vanilla_{rays}': lambda rays=rays: train(rays) for rays in (64, 1024)}


if __name__ == '__main__':
    serve_torch(WORKS)
