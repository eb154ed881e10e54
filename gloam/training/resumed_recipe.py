"""Which recipe a resumed run goes on with."""

from __future__ import annotations

from gloam.errors import GloamError
from gloam.recipes.recipe import Recipe, differing_keys, resolve, validate

# Keys that may differ when a run goes on: the same draws and updates result.
MACHINE = {
    "data": ("root", "cache", "workers", "fingerprint"),
    "train": ("accelerator", "log_every", "save_every"),
}
MACHINE_SECTIONS = ("loggers", "logger_options")


def resumed_recipe(given: Recipe, saved: Recipe) -> Recipe:
    """The saved recipe with the given one's machine settings (``MACHINE``).

    Args:
        given: the saved recipe, perhaps with changes from the command line, or the recipe the run began with.
        saved: the checkpoint's.

    Raises:
        GloamError: the two differ in what the result depends on; every such key is named.
    """
    given = resolve(given).recipe
    content = resolve(saved).recipe.model_dump(mode="json")
    asked = given.model_dump(mode="json")
    for section, keys in MACHINE.items():
        content[section] |= {key: asked[section][key] for key in keys if asked[section][key] is not None}
    content |= {section: asked[section] for section in MACHINE_SECTIONS}
    content["plugins"] = list(dict.fromkeys([*saved.plugins, *given.plugins]))
    recipe = validate(content, "resumed recipe")
    free = {f"{section}.{key}" for section, keys in MACHINE.items() for key in keys}
    words = ("description", "expected", "plugins", "trains_on")
    changed = [key for key in differing_keys(given, recipe) if key not in free and key.split(".")[0] not in words]
    if changed:
        raise GloamError(
            f"A resumed run goes on with its own recipe; {', '.join(changed)} cannot change. Leave the flags out, or "
            "start a new run from its weights: --weights RUN."
        )
    return recipe
