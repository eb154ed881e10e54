"""The model card of published weights: what they are, what they were measured to do, and what they are not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from gloam.evaluation.evaluator import Results

_COLUMNS = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mAP": "mAP", "mINP": "mINP"}


def model_card(about: Mapping[str, Any], scores: Results | None, digests: Mapping[str, str]) -> str:
    """README.md of a released model, with the header that the Hugging Face Hub reads.

    Args:
        about: what ``config.json`` holds.
        scores: of the run; None if it has none.
        digests: file -> SHA-256.
    """
    data = about["trained_on"]
    header = {
        "library_name": "gloam",
        "license": about["licence"],
        "pipeline_tag": "image-feature-extraction",
        "tags": ["person-re-identification", about["method"], data["dataset"]],
    }
    clip = f"clips of {about['frames']} frames of " if about["frames"] else ""
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in data["counts"].items())
    feature = f"`{about['feature']}`: {about['feature_dim']} numbers of unit length"
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False).strip(),
        "---",
        f"# {about['method']} on {data['title']}",
        "",
        f"Features for person re-identification, made by gloam {about['gloam']}. "
        f"{about['recipe'].get('description') or ''}".strip(),
        "",
        "| | |",
        "|---|---|",
        f"| method | `{about['method']}`, feature {feature} |",
        f"| parameters | {about['parameters']:,} |",
        f"| input | {clip}{about['height']} x {about['width']} RGB images, mean {about['mean']}, std {about['std']}; "
        f"{'averaged with the mirror image' if about['mirror'] else 'not mirrored'} |",
        f"| fingerprint | `{about['fingerprint']}` |",
        "| recipe | every flag of the training: `recipe.yaml` |",
        "",
        "```python",
        "import gloam",
        "",
        'model = gloam.load_model("hf://OWNER/NAME")  # or the folder of this file',
        'features = model.embed("photos/", modality="visible")',
        "```",
        "",
        "## Training data",
        "",
        f"{data['title']} (`{data['dataset']}`): {counts}. Terms of the data: {data['licence']}. They bind these "
        "weights too where they say so; the licence above is the publisher's.",
    ]
    if data["page"]:
        lines += ["", f"The authors' page: {data['page']}"]
    if data["notice"]:
        lines += ["", f"**{data['notice']}**"]
    lines += ["", "## Scores", "", *_score_lines(scores), "", "## Intended use and limits", "", *_limits(about), ""]
    lines += ["## Files", "", "| file | SHA-256 |", "|---|---|"]
    lines += [f"| {name} | `{digest}` |" for name, digest in digests.items()]
    lines += ["", "`sha256sum -c SHA256SUMS` checks them, this page included.", ""]
    return "\n".join(lines)


def _score_lines(scores: Results | None) -> list[str]:
    if scores is None:
        return ["None were measured."]
    columns = [name for name in _COLUMNS if all(name in scores.mean(protocol) for protocol in scores.trials)]
    lines = [
        f"| protocol | {' | '.join(_COLUMNS[name] for name in columns)} | queries | trials |",
        "|" + "---|" * (len(columns) + 3),
    ]
    for protocol, rows in scores.trials.items():
        mean, spread = scores.mean(protocol), scores.spread(protocol)
        cells = [_percent(mean[name], spread[name], len(rows)) for name in columns]
        lines.append(f"| {protocol} | {' | '.join(cells)} | {mean['num_valid']:.0f} | {len(rows)} |")
    lines += ["", "Percent, mean and standard deviation over the trials of a protocol, measured with gloam."]
    lines += [f"{key}: {value}." for key, value in scores.notes.items()]
    return lines


def _percent(mean: float, spread: float, trials: int) -> str:
    return f"{100 * mean:.2f}" + (f" ± {100 * spread:.2f}" if trials > 1 else "")


def _limits(about: Mapping[str, Any]) -> list[str]:
    lines = [
        "- For research on re-identification, and for finding images of the same person in recordings whose use is "
        "lawful and known to the people in them.",
        "- Not for deciding anything about a person without a human who may overrule it: the scores above say how "
        "often the first match is wrong, on the benchmark's cameras. On other cameras, light, clothes and groups of "
        "people it will be wrong more often; measure there first.",
        "- Not for covert or blanket surveillance. In many countries such features are biometric or personal data.",
        f"- Images must reach the network as above ({about['height']} x {about['width']}, RGB); features of models "
        "with another fingerprint lie in another space and must not be compared.",
    ]
    if about["features_of_people"]:
        lines.append(
            f"- The weights include memories of the training: {', '.join(about['features_of_people'])}. They are "
            "features of the people in the training data; handle the file accordingly."
        )
    return lines
