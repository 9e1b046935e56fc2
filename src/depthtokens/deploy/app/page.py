"""The page in gradio: what stands where, and what happens when."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from ...depth.model import DepthTokens
from ...errors import DepthTokensError, UsageError
from ...prompt.scales import SCALES
from ...prompt.template import TEMPLATES
from ...report.html import fragment
from .facts import Facts
from .photos import KINDS, NPY, PNG, Photos, heat_map, legend, measured, pair, uncertainty
from .words import SAMPLES, Sample, Words

WAITING = 24
"""How many requests wait at most; others are told that there is no room."""
EXAMPLES = 5
"""How many scenes are offered as photos."""


def build(model: DepthTokens, sample: Sample, folder: Path) -> gr.Blocks:
    """The page.

    Args:
        model: whose depth is shown.
        sample: scenes to look at words on.
        folder: where files for people are made; something deletes them.
    """
    photos, words, facts = Photos(model), Words(model, sample), Facts(model)
    settings = model.settings
    with gr.Blocks(title="depthtokens", analytics_enabled=False) as page:
        gr.HTML(fragment("app/head.html", settings=settings, clip=model.clip.name), padding=False)
        with gr.Tab("Depth"):
            _depth(photos, sample, settings.centres, folder)
        with gr.Tab("Words") as tab:
            _words(words, tab)
        with gr.Tab("Tokens") as tab:
            _tokens(facts, tab)
    page.queue(max_size=WAITING, api_open=False)
    return page


def _depth(photos: Photos, sample: Sample, centres: tuple[float, ...], folder: Path) -> None:
    """The view of a photo and its depth."""
    gr.Markdown("Give a photo or take a rendered scene; then drag the line between it and its depth, or **click the photo** for metres.")
    with gr.Row():
        with gr.Column(min_width=300):
            # Files are looked at by `Photos` alone: gradio would open them with whatever Pillow has.
            photo = gr.Image(
                label="Photo",
                sources=["upload", "webcam", "clipboard"],
                format="png",
                type="filepath",
                height=380,
                buttons=[],
                elem_id="photo",
            )
            point = _part("point")
            with gr.Row():
                examples = [gr.Button(f"Scene {number + 1}", size="sm", min_width=70) for number in range(EXAMPLES)]
        with gr.Column(min_width=300):
            both = gr.ImageSlider(label="Photo and depth", interactive=False, max_height=380, elem_id="both", buttons=["fullscreen"])
            colours = _part("legend")
    with gr.Row():
        with gr.Column(min_width=300):
            gr.Markdown("### Uncertainty")
            spread = _part("uncertainty")
        with gr.Column(min_width=300):
            gr.Markdown("### One token")
            token = gr.Slider(0, len(centres) - 1, value=0, step=1, label="Token, from near to far", elem_id="token")
            heat = _part("heat")
    with gr.Accordion("Files of depth", open=False):
        with gr.Row():
            kinds = gr.CheckboxGroup(list(KINDS), value=[PNG, NPY], label="Files")
            fov = gr.Number(
                None,
                label="Field of view in degrees",
                info="from left to right, for a point cloud; 0 where the photo says it",
                elem_id="fov",
            )
        make = gr.Button("Make files")
        wrong = _part("wrong")
        files = gr.File(label="Download", interactive=False, file_count="multiple", height=150, elem_id="files")

    def show(given: Any, number: Any) -> tuple[Any, ...]:
        if given is None:
            return None, "", "", "", ""
        depth = photos.depth(_path(given))
        return pair(depth), legend(depth), uncertainty(depth), heat_map(depth, _number(number), centres), ""

    def at(given: Any, event: gr.SelectData) -> str:
        x, y = event.index
        return measured(photos.depth(_path(given)), int(x), int(y))

    def seen(given: Any, number: Any) -> str:
        return "" if given is None else heat_map(photos.depth(_path(given)), _number(number), centres)

    def written(given: Any, chosen: Any, degrees: Any) -> tuple[list[str] | None, str]:
        place = Path(tempfile.mkdtemp(dir=folder))
        made = photos.files(_path(given), list(chosen or []), float(degrees) if degrees else None, place)
        return [str(path) for path in made], ""

    listen = {**_one_at_a_time(), "preprocess": False}
    photo.change(_answers(show, 5, 4), [photo, token], [both, colours, spread, heat, point], **listen)
    photo.select(_answers(at), photo, point, show_progress="hidden", **listen)
    token.change(_answers(seen), [photo, token], heat, show_progress="hidden", trigger_mode="always_last", **listen)
    make.click(_answers(written, 2, 1), [photo, kinds, fov], [files, wrong], **listen)
    for number, button in enumerate(examples):
        button.click(lambda number=number: sample.scenes.read(number)[0], None, photo, **_one_at_a_time())


def _words(words: Words, tab: gr.Tab) -> None:
    """The view of words beside the tokens."""
    gr.Markdown("Say it yourself: one word or phrase for each bin, from near to far. The map and the score show what CLIP makes of them.")
    with gr.Row():
        with gr.Column(min_width=300, scale=1):
            first = "\n".join(_first_words(len(words.model.centres)))
            text = gr.Textbox(first, lines=7, max_lines=12, label="Words, one a line", elem_id="words")
            template = gr.Textbox(TEMPLATES["baseline"], label="Template", elem_id="template")
            layouts = ["linear", "log"]
            bins = gr.Dropdown(layouts, allow_custom_value=True, label="Bins", info="or metres: 1|2|4", elem_id="bins")
            scene = gr.Slider(1, SAMPLES, value=1, step=1, label="Scene", elem_id="scene")
            ask = gr.Button("Try these words", variant="primary")
        with gr.Column(min_width=300, scale=2):
            out = _part("answer")

    def answer(text: str, template: str, bins: str, scene: float) -> str:
        return words.answer(text or "", template or "", str(bins or ""), int(scene) - 1)

    for event in (tab.select, ask.click, template.submit, scene.release):
        event(_answers(answer), [text, template, bins, scene], out, **_one_at_a_time())


def _tokens(facts: Facts, tab: gr.Tab) -> None:
    """The view of the tokens that were loaded."""
    gr.Markdown("What the tokens are like: how far apart their sentences are for CLIP, whether they follow depth, which words lie near.")
    shape = _part("shape")
    find = gr.Button("Find the nearest words")
    near = _part("near")

    def found(progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008 (gradio's way)
        return facts.neighbours(lambda label, done, total, note="": progress((done, total), desc=label))

    tab.select(_answers(lambda: facts.shape), None, shape, **_one_at_a_time())
    find.click(_answers(found), None, near, **_one_at_a_time())


def _part(name: str) -> gr.HTML:
    """A place for what the other modules write."""
    return gr.HTML(elem_id=name, padding=False)


def _one_at_a_time() -> dict[str, Any]:
    """How all events run: one after the other, and not for programs."""
    return {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}


def _answers(work: Callable[..., Any], count: int = 1, said: int = 0) -> Callable[..., Any]:
    """A handler whose errors are sentences on the page.

    Args:
        work: the handler.
        count: how many values it gives.
        said: which of them, counted from 0, takes the sentence; the others are emptied.
    """

    @wraps(work)
    def handler(*args: Any, **kwargs: Any) -> Any:
        try:
            return work(*args, **kwargs)
        except DepthTokensError as error:
            sentence = fragment("app/says.html", sentence=str(error))
            return sentence if count == 1 else tuple(sentence if place == said else None for place in range(count))

    return handler


def _path(given: Any) -> Path:
    """The file of a photo as gradio passes it, which has checked that it was uploaded."""
    if not isinstance(given, dict) or not isinstance(given.get("path"), str):
        raise UsageError("give a photo first")
    return Path(given["path"])


def _number(given: Any) -> int:
    """The number of a token, as a slider says it."""
    if not isinstance(given, int | float):
        raise UsageError("a token has a number")
    return int(given)


def _first_words(count: int) -> list[str]:
    """What stands in the box at first: a hand-made scale where one has as many words as there are tokens."""
    return [str(word) for word in next((words for words in SCALES.values() if len(words) == count), ("near", "middle", "far"))]
