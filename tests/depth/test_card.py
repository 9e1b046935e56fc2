"""Model cards: what they say, what they must not say, and that nothing in a header is more than text in them."""

import json
import re
from dataclasses import replace

import pytest

from depthtokens import UsageError
from depthtokens.clip import CLIPIdentity
from depthtokens.clip.hubname import HubName
from depthtokens.depth.card import CARD, code, model_card, shared_files
from depthtokens.depth.checkpoint import TOKENS, read_tokens
from depthtokens.depth.header import Header
from depthtokens.depth.settings import ModelSettings, Provenance
from depthtokens.experiment.config import Experiment

NAME = HubName("ann/rooms")
SETTINGS = ModelSettings(depth="learned:5", bins="linear", depth_range=(0.5, 10.0), template="This is {ctx} {depth}", predict_side=480)
EXPERIMENT = Experiment(
    clip="/home/ann/secret/tiny.pt", data="folder:/home/ann/secret/rooms", out="/home/ann/secret/runs/a", list_file="~/secret/list.csv",
    epochs=3,
)  # fmt: skip
TRAINING = {
    "experiment": EXPERIMENT.to_dict(), "images": 800, "data": "rooms", "epoch_losses": [1.0, 0.53219], "data_fingerprint": "f" * 64,
    "row": "learned-7", "store": {"views": [0, 1], "split": "train"}, "nyu": {"nyu train": {"data": "nyu:/secret/NYU", "images": 795}},
}  # fmt: skip
HEADER = Header(SETTINGS, CLIPIdentity("tiny.pt", None, "a" * 64), Provenance("auty2023", TRAINING), {"depthtokens": "1.2.3"})
BUNDLED = replace(HEADER, clip=CLIPIdentity("bundled", None, "b" * 64))


def test_it_says_what_the_file_is():
    card = model_card(HEADER, NAME)
    for said in (
        "# rooms\n", "5 learned vectors", "1 learned in its `{ctx}` slots", "`tiny.pt`", "`" + "a" * 64 + "`", "`This is {ctx} {depth}`",
        "`linear`, centres at ", "0.5 to 10 m", "480 pixels", "protocol: `auty2023`", "`1.2.3`", "`epochs`: `3`", "`data`: `folder:rooms`",
        "`images`: `800`", "`mean loss of the last epoch`: `0.5322`", "`nyu:NYU, 795 images`", "None are given here",
    ):  # fmt: skip
        assert said in card, said
    gain = replace(SETTINGS, condition="gain")
    assert "decided by the image: `gain`" in model_card(replace(HEADER, model=gain), NAME) and "decided" not in card


def test_it_names_no_place_of_this_machine():
    card = model_card(replace(HEADER, clip=CLIPIdentity("/home/ann/secret/tiny.pt", "/home/ann/secret/w.pt", "a" * 64)), NAME)
    assert not re.search("secret|home|runs", card)
    assert "`tiny.pt` with weights `w.pt`" in card


def test_metadata_is_what_the_hub_reads():
    from huggingface_hub import ModelCard

    data = ModelCard(model_card(HEADER, NAME, "cc-by-4.0")).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-4.0", "depthtokens", "depth-estimation")
    data = ModelCard(model_card(HEADER, NAME)).data
    assert (data.license, data.license_name) == ("other", "not-stated")


def test_a_licence_is_said_plainly():
    assert "`mit`, as stated by whoever pushed these tokens." in model_card(HEADER, NAME, "mit")
    assert "None was stated by whoever pushed these tokens." in model_card(HEADER, NAME)
    for wrong in ("MIT License", "", "mit\nlicense_name: x", "a: b"):
        with pytest.raises(UsageError, match="is no licence as the hub calls one"):
            model_card(HEADER, NAME, wrong)


def test_how_to_load_depends_on_the_clip():
    own, public = model_card(HEADER, HubName("ann/rooms", "v1")), model_card(BUNDLED, NAME)
    assert 'from_pretrained("ann/rooms@v1", clip=dt.load_clip("CLIP"))' in own and "hf:ann/rooms@v1 photo.jpg --clip CLIP" in own
    assert 'from_pretrained("ann/rooms")' in public and "hf:ann/rooms photo.jpg\n" in public and "--clip" not in public


def test_python_in_it_is_python():
    for card in (model_card(HEADER, NAME), model_card(BUNDLED, NAME)):
        compile(re.search("```python\n(.*?)```", card, re.DOTALL)[1], "card", "exec")


@pytest.mark.parametrize("text", ["a `b` c", "``", "`", "x\n\n# y", "a|b", "<script>", "", "a\x1b[31m"])
def test_code_is_one_line_that_ends_where_it_began(text):
    found = code(text)
    assert "\n" not in found
    fence = re.match("`+", found)[0]
    assert found.endswith(fence) and fence not in found[len(fence) : -len(fence)]


def test_marks_in_a_header_are_text():
    marks = "x` **b**\n\n# Heading [a](http://evil) <img src=x> {depth}"
    header = replace(HEADER, provenance=Provenance(None, {"row": "y`\n# Heading", "a`\n# b": 1}))
    header = replace(header, model=SETTINGS.changed(template=marks), versions={"v`\n# w": "`\n# z"})
    lines = model_card(header, NAME).splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# rooms", "## Scores", "## Training", "## Use", "## Licence"]
    spans = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
    assert not [line for line in lines if "evil" in spans.sub("", line) or "Heading" in spans.sub("", line)]


def test_a_long_header_makes_no_long_card():
    training = {f"name{i}": "x" * 3000 for i in range(1000)} | {"epoch_losses": [0.5] * 10000}
    header = replace(HEADER, model=SETTINGS.changed(depth="learned:4096", bins="log"), provenance=Provenance(None, training))
    assert len(model_card(header, NAME)) < 20_000


def test_tokens_of_an_earlier_version_lose_their_places(tmp_path, tiny_clip):
    from helpers import make_model

    model = make_model(tiny_clip)
    header = replace(HEADER, model=model.settings, clip=CLIPIdentity("/home/ann/secret/tiny.pt", None, tiny_clip.fingerprint))
    files = shared_files(model.state(), header, NAME)
    assert sorted(files) == [CARD, TOKENS]
    assert not [name for name, content in files.items() if b"secret" in content]
    (tmp_path / "a.safetensors").write_bytes(files[TOKENS])
    tensors, found = read_tokens(tmp_path / "a.safetensors")
    assert found.clip.name == "tiny.pt" and (tensors["tokens.depth"] == model.tokens["depth"]).all()
    assert json.dumps(found.to_dict()) == json.dumps(header.to_dict())
