"""Shared network parts under the names that papers use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gloam.exports import lazy_exports

if TYPE_CHECKING:
    from gloam.models.backbone import backbone_layers, check_size, create_backbone, has_residual_stages, is_timm
    from gloam.models.batch_norm_groups import (
        GroupedBatchNorm1d,
        GroupedBatchNorm2d,
        GroupedBatchNorm3d,
        group_batch_norm,
    )
    from gloam.models.channel_similarity import ChannelSimilarity, similarity_gap
    from gloam.models.class_centers import ClassCenters
    from gloam.models.consensus_propagation import affinity_graph, consensus_share, propagate_consensus
    from gloam.models.dgcnn import DGCNN
    from gloam.models.embedding import Embedded, EmbeddingNet
    from gloam.models.graph_attention import CrossModalityGraph, GraphAttention, dynamic_weight
    from gloam.models.graph_reasoning import GraphReasoning, Relation
    from gloam.models.isg_dm import ISGDM, MultiPartISGDM, split_stripes
    from gloam.models.memory import (
        ClusterMemory,
        InstanceMemory,
        Memory,
        cluster_means,
        gather_rows,
        occurrences,
        resize_buffers,
        update_hardest,
        update_in_order,
    )
    from gloam.models.modality_discriminator import PartDiscriminators, reverse_gradient
    from gloam.models.multi_view_attention import MultiViewAttention
    from gloam.models.neck import BNNeck, Classifier, unit
    from gloam.models.nonlocal_block import NonLocalBlock
    from gloam.models.pair_graph import PairGraphNetwork, average_over_processes
    from gloam.models.part_attention import WeightedPartAttention
    from gloam.models.part_memory import PartMemory, propagate
    from gloam.models.pooling import AveragePool, GeM, MaxPool, create_pooling
    from gloam.models.released_names import rename_prefixes, restore_prefixes
    from gloam.models.resnet import IBN, ResNet, draw_convolutions
    from gloam.models.row_attention import attention_weights, gated_residual
    from gloam.models.single_network import RegisteredBackbone, RoutedStem, SingleNetworkBackbone
    from gloam.models.subgraphs import Subgraphs, build_subgraphs, nearest_others
    from gloam.models.timm_backbone import TimmBackbone, check_image_size, strides_can_change
    from gloam.models.traced import origins, plain, trace
    from gloam.models.two_stream import Stem, Trunk, TwoStreamBackbone, route_rows, separate_draws
    from gloam.models.unit_embedding import UnitEmbedding, rename_released, to_released
    from gloam.models.video_nonlocal import SpatioTemporalNonLocal, over_clips
    from gloam.models.weights import (
        WeightReport,
        imagenet_state,
        load_imagenet,
        load_weights,
        read_state,
        to_reference_names,
    )

# File -> what it offers: imported when one of the names is asked for.
_NAMES = {
    "backbone": "backbone_layers check_size create_backbone has_residual_stages is_timm",
    "batch_norm_groups": "GroupedBatchNorm1d GroupedBatchNorm2d GroupedBatchNorm3d group_batch_norm",
    "channel_similarity": "ChannelSimilarity similarity_gap",
    "class_centers": "ClassCenters",
    "consensus_propagation": "affinity_graph consensus_share propagate_consensus",
    "dgcnn": "DGCNN",
    "embedding": "Embedded EmbeddingNet",
    "graph_attention": "CrossModalityGraph GraphAttention dynamic_weight",
    "graph_reasoning": "GraphReasoning Relation",
    "isg_dm": "ISGDM MultiPartISGDM split_stripes",
    "memory": (
        "ClusterMemory InstanceMemory Memory cluster_means gather_rows occurrences resize_buffers "
        "update_hardest update_in_order"
    ),
    "modality_discriminator": "PartDiscriminators reverse_gradient",
    "multi_view_attention": "MultiViewAttention",
    "neck": "BNNeck Classifier unit",
    "nonlocal_block": "NonLocalBlock",
    "pair_graph": "PairGraphNetwork average_over_processes",
    "part_attention": "WeightedPartAttention",
    "part_memory": "PartMemory propagate",
    "pooling": "AveragePool GeM MaxPool create_pooling",
    "released_names": "rename_prefixes restore_prefixes",
    "resnet": "IBN ResNet draw_convolutions",
    "row_attention": "attention_weights gated_residual",
    "single_network": "RegisteredBackbone RoutedStem SingleNetworkBackbone",
    "subgraphs": "Subgraphs build_subgraphs nearest_others",
    "timm_backbone": "TimmBackbone check_image_size strides_can_change",
    "traced": "origins plain trace",
    "two_stream": "Stem Trunk TwoStreamBackbone route_rows separate_draws",
    "unit_embedding": "UnitEmbedding rename_released to_released",
    "video_nonlocal": "SpatioTemporalNonLocal over_clips",
    "weights": "WeightReport imagenet_state load_imagenet load_weights read_state to_reference_names",
}

__all__ = [
    "DGCNN",
    "IBN",
    "ISGDM",
    "AveragePool",
    "BNNeck",
    "ChannelSimilarity",
    "ClassCenters",
    "Classifier",
    "ClusterMemory",
    "CrossModalityGraph",
    "Embedded",
    "EmbeddingNet",
    "GeM",
    "GraphAttention",
    "GraphReasoning",
    "GroupedBatchNorm1d",
    "GroupedBatchNorm2d",
    "GroupedBatchNorm3d",
    "InstanceMemory",
    "MaxPool",
    "Memory",
    "MultiPartISGDM",
    "MultiViewAttention",
    "NonLocalBlock",
    "PairGraphNetwork",
    "PartDiscriminators",
    "PartMemory",
    "RegisteredBackbone",
    "Relation",
    "ResNet",
    "RoutedStem",
    "SingleNetworkBackbone",
    "SpatioTemporalNonLocal",
    "Stem",
    "Subgraphs",
    "TimmBackbone",
    "Trunk",
    "TwoStreamBackbone",
    "UnitEmbedding",
    "WeightReport",
    "WeightedPartAttention",
    "affinity_graph",
    "attention_weights",
    "average_over_processes",
    "backbone_layers",
    "build_subgraphs",
    "check_image_size",
    "check_size",
    "cluster_means",
    "consensus_share",
    "create_backbone",
    "create_pooling",
    "draw_convolutions",
    "dynamic_weight",
    "gated_residual",
    "gather_rows",
    "group_batch_norm",
    "has_residual_stages",
    "imagenet_state",
    "is_timm",
    "load_imagenet",
    "load_weights",
    "nearest_others",
    "occurrences",
    "origins",
    "over_clips",
    "plain",
    "propagate",
    "propagate_consensus",
    "read_state",
    "rename_prefixes",
    "rename_released",
    "resize_buffers",
    "restore_prefixes",
    "reverse_gradient",
    "route_rows",
    "separate_draws",
    "similarity_gap",
    "split_stripes",
    "strides_can_change",
    "to_reference_names",
    "to_released",
    "trace",
    "unit",
    "update_hardest",
    "update_in_order",
]

__getattr__, __dir__ = lazy_exports(__name__, _NAMES)
