"""Attention modules in the forms that the papers print, with the big tensors that the library avoids."""

from __future__ import annotations

import torch
from torch.nn.functional import elu, leaky_relu


def graph_attention(rows, weight, a, connected, slope=0.2):
    """N x N x 2 out concatenation and a mask of -9e15."""
    h = rows @ weight
    count = len(h)
    pairs = torch.cat([h[:, None, :].expand(count, count, -1), h[None, :, :].expand(count, count, -1)], dim=2)
    scores = leaky_relu((pairs @ a).squeeze(2), slope)
    scores = torch.where(connected, scores, torch.full_like(scores, -9e15))
    return scores.softmax(dim=1) @ h


def weighted_part_attention(module, maps, feature):
    """IWPA part by part and image by image."""
    results = []
    rows_per_part = maps.shape[2] // module.num_parts
    for image, own in zip(maps, feature, strict=True):
        parts = [
            image[:, i * rows_per_part : (i + 1) * rows_per_part].mean(dim=(1, 2)) for i in range(module.num_parts)
        ]
        first, second, third = (
            [layer.weight.squeeze(3).squeeze(2) @ s + layer.bias for s in parts]
            for layer in (module.fc1[0], module.fc2, module.fc3)
        )
        total = torch.zeros_like(own)
        for i in range(module.num_parts):
            weights = torch.stack([first[i] @ second[j] for j in range(module.num_parts)]).softmax(0)
            refined = sum(w * z for w, z in zip(weights, third, strict=True))
            total = total + module.gate.softmax(0)[i] * refined
        results.append(total + own)
    return module.bottleneck(torch.stack(results))


def multi_view_attention(module, frames, clip_length):
    """The release's three permutations, one product with the map per mask, GeM or mean per frame."""
    count, channels, height, width = frames.shape
    batch = count // clip_length
    clip = frames.reshape(batch, clip_length, channels, height, width)
    pooled, grouped = [], []
    for view, order in (("hw", (0, 1, 2, 3, 4)), ("tw", (0, 3, 2, 1, 4)), ("th", (0, 4, 2, 1, 3))):
        turned = clip.permute(*order)
        flat = turned.reshape(-1, channels, *turned.shape[3:])
        masks = getattr(module, f"view_attention_{view}")(flat).sigmoid()
        grouped.append(masks.flatten(2))
        back = [order.index(axis) for axis in range(5)]
        for head in range(module.heads):
            product = (
                (flat * masks[:, head : head + 1]).reshape(*turned.shape).permute(*back).reshape(count, channels, -1)
            )
            pooled.append(product.mean(2) if module.pooling == "avg" else (product.pow(3).mean(2) + 1e-12).pow(1 / 3))
    return torch.cat(pooled, dim=1), grouped


def space_time_nonlocal(block, clip):
    """The N x N affinity in full."""
    theta, phi, g = (layer(clip).flatten(2) for layer in (block.theta, block.phi, block.g))
    affinity = (theta.transpose(1, 2) @ phi).softmax(dim=2)
    mixed = (affinity @ g.transpose(1, 2)).transpose(1, 2)
    return clip + block.W(mixed.reshape(mixed.shape[0], -1, *clip.shape[2:]))


def graph_branch(module, features, labels):
    """CGSA in evaluation mode (no dropout)."""
    adjacency = (labels[:, None] == labels[None, :]).double() + torch.eye(len(labels), dtype=torch.float64)
    adjacency = adjacency / adjacency.norm(dim=1, keepdim=True)
    heads = [elu(graph_attention(features, head.W, head.a, adjacency > 0)) for head in module.heads]
    out = graph_attention(torch.cat(heads, 1), module.out_att.W, module.out_att.a, adjacency > 0)
    return elu(out).log_softmax(1)


def channel_attention(maps, keys, gamma):
    """CGRNet's similarity module as released: softmax of (row maximum - energy)."""
    batch, channels = maps.shape[:2]
    rows, columns = maps.reshape(batch, channels, -1), keys.reshape(batch, channels, -1)
    energy = torch.bmm(rows, columns.permute(0, 2, 1))
    attention = (energy.amax(dim=2, keepdim=True).expand_as(energy) - energy).softmax(dim=2)
    return gamma * torch.bmm(attention, rows).reshape(maps.shape) + maps, attention


def position_attention(relation, queries, sources):
    """CGRNet's generic relation on two whole maps: every position of one against every position of the other."""
    batch, _, height, width = queries.shape
    query = relation["query_conv"](queries).reshape(batch, -1, height * width).permute(0, 2, 1)
    key = relation["key_conv"](sources).reshape(batch, -1, height * width)
    value = relation["value_conv"](sources).reshape(batch, -1, height * width)
    attention = torch.bmm(query, key).softmax(dim=2)
    out = torch.bmm(value, attention.permute(0, 2, 1)).reshape(queries.shape)
    return relation["gamma"] * out + queries, attention


def graph_reasoning(maps, relations):
    """CGRNet's fusion of three generic relations; the mean is expanded to a whole map."""
    whole = maps.mean(dim=(2, 3), keepdim=True).expand_as(maps)
    return (
        maps
        + position_attention(relations["global2local"], maps, whole)[0]
        + position_attention(relations["local2local"], maps, maps)[0]
        + position_attention(relations["local2global"], whole, maps)[0]
    )
