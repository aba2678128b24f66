"""Torch's side of benchmarks/translation.py. It needs torch, and imports nothing of Canon.

Decoding has the same Transformer as is usual for it: keys and values of the source are computed once, those of the
target are written into buffers, and `scaled_dot_product_attention` reads the part that is filled.
"""

import torch
from torch import nn
from torch.nn import functional as F
from turns import form, serve_torch

BATCH, SOURCE, LENGTH, VOCAB, LAYERS, D, HEADS, FF = 8, 32, 64, 8000, 3, 256, 8, 1024


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(D, D, bias=False) for _ in range(4))

    def heads(self, x):
        return x.view(len(x), -1, HEADS, D // HEADS).transpose(1, 2)

    def attend(self, x, keys, values):
        y = F.scaled_dot_product_attention(self.heads(self.query(x)), keys, values)
        return self.output(y.transpose(1, 2).reshape(len(x), -1, D))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.own, self.cross = Attention(), Attention()
        self.wide, self.narrow = nn.Linear(D, FF), nn.Linear(FF, D)
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(3))

    def forward(self, x, i, keys, values, cross):
        keys[:, :, i : i + 1] = self.own.heads(self.own.key(x))
        values[:, :, i : i + 1] = self.own.heads(self.own.value(x))
        x = self.norms[0](x + self.own.attend(x, keys[:, :, : i + 1], values[:, :, : i + 1]))
        x = self.norms[1](x + self.cross.attend(x, *cross))
        return self.norms[2](x + self.narrow(F.relu(self.wide(x))))


class Decoding:
    def __init__(self):
        layer = nn.TransformerEncoderLayer(D, HEADS, FF, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS).eval()
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS)).eval()
        self.embedding = nn.Embedding(VOCAB, D)
        nn.init.normal_(self.embedding.weight, std=D**-0.5)
        self.places = torch.randn(LENGTH, D)
        self.source = torch.randint(1, VOCAB, (BATCH, SOURCE))

    @torch.inference_mode()
    def greedy(self):
        memory = self.encoder(self.embedding(self.source) * D**0.5 + self.places[:SOURCE])
        cross = [(at.heads(at.key(memory)), at.heads(at.value(memory))) for at in (x.cross for x in self.layers)]
        caches = [torch.zeros(2, BATCH, HEADS, LENGTH, D // HEADS) for _ in self.layers]
        tokens, decoded = torch.ones(BATCH, 1, dtype=torch.long), []
        for i in range(LENGTH):
            x = self.embedding(tokens) * D**0.5 + self.places[i]
            for layer, (keys, values), memory in zip(self.layers, caches, cross, strict=True):
                x = layer(x, i, keys, values, memory)
            tokens = (x[:, 0] @ self.embedding.weight.T).argmax(-1, keepdim=True)
            decoded.append(tokens)
        return torch.cat(decoded, 1)


class Base(nn.Module):
    """The base model with tied embeddings, and dropout on embeddings and on what sub-layers return alone."""

    def __init__(self):
        super().__init__()
        self.transformer = nn.Transformer(512, 8, 6, 6, 2048, dropout=0.1, batch_first=True)
        self.embedding, self.dropout = nn.Embedding(VOCAB, 512), nn.Dropout(0.1)
        nn.init.normal_(self.embedding.weight, std=512**-0.5)
        self.register_buffer('places', torch.randn(32, 512))
        self.register_buffer('causal', nn.Transformer.generate_square_subsequent_mask(32))
        for layer in self.modules():
            if isinstance(layer, nn.MultiheadAttention):
                layer.dropout = 0.0
            if isinstance(layer, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
                layer.dropout = nn.Identity()  # that within the feed-forward network

    def embed(self, tokens):
        return self.dropout(self.embedding(tokens) * 512**0.5 + self.places)

    def forward(self, source, inputs):
        y = self.transformer(self.embed(source), self.embed(inputs), tgt_mask=self.causal, tgt_is_causal=True)
        return y @ self.embedding.weight.T


def train_base():
    model = form(Base())
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    source, inputs, target = (torch.randint(1, VOCAB, (16, 32)) for _ in range(3))

    def call():
        optimizer.zero_grad()
        F.cross_entropy(model(source, inputs).flatten(0, 1), target.flatten(), label_smoothing=0.1).backward()
        optimizer.step()

    return call


if __name__ == '__main__':
    serve_torch({'base_train': train_base, 'greedy': lambda: Decoding().greedy})
