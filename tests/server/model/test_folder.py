"""A model folder is recognised by what it contains, and a bad one is refused with a sentence."""

import json
import shutil
import zipfile

import pytest

from lingbi.errors import ConfigurationError
from lingbi.model import catalogue
from lingbi.model.folder import inspect
from lingbi.model.resolve import find_model
from tests.conftest import DEMO
from tests.server.model.model_folders import GEOMETRIES, edit_config, published, take_geometry


@pytest.fixture
def folder(tmp_path):
    """A copy of the demo model, to spoil."""
    return shutil.copytree(DEMO, tmp_path / "internlm2-chat" / "a model. v1")


def test_demo_is_recognised_under_any_name(folder):
    found = inspect(f"{folder}/")
    assert (found.served_name, found.template, found.is_demo) == (catalogue.DEMO_SERVED_NAME, catalogue.TEMPLATE, True)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_published_geometries_are_recognised(folder, name):
    take_geometry(folder, name)
    found = inspect(folder)
    model = catalogue.find(name)
    assert (found.served_name, found.template, found.session_len) == (
        model.served_name,
        model.template,
        model.session_len,
    )


def test_link_has_a_name_without_traps(folder, tmp_path):
    first, second = inspect(folder), inspect(shutil.copytree(folder, tmp_path / "b" / folder.name))
    links = [each.link_in(tmp_path / "links") for each in (first, second)]
    assert links[0] != links[1]
    assert all(link.name.replace("_", "").isalnum() and (link / "config.json").exists() for link in links)
    assert first.link_in(tmp_path / "links") == links[0]


def break_shard(folder):
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:1000000])


def zip_of_images(folder):
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("holiday.jpg", b"JPEG")


def cut_safetensors(folder):
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(64)}, folder / "model.safetensors")
    inspect(folder)  # whole, it is taken
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1])


SPOILED = {
    "zip": (zip_of_images, "is a zip of something else, not a torch checkpoint"),
    "safetensors cut": (cut_safetensors, "model.safetensors is cut short or not a safetensors file"),
    "safetensors empty": (lambda folder: (folder / "a.safetensors").touch(), "cut short or not a safetensors file"),
    "index cut": (
        lambda folder: (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a'),
        "index.json is cut short or no index",
    ),
    "index of nothing": (
        lambda folder: (folder / "pytorch_model.bin.index.json").write_text("[]"),
        "index.json is cut short or no index",
    ),
    "numbered shard without the others": (
        lambda folder: (folder / "pytorch_model.bin").rename(folder / "pytorch_model-00002-of-00002.bin"),
        "lacks the shards pytorch_model-00001-of-00002.bin",
    ),
    "no code beyond auto_map": (lambda folder: (folder / "build_mlp.py").unlink(), "lacks build_mlp.py"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
    "config cut": (lambda folder: (folder / "config.json").write_text('{"arch'), "cannot be read as JSON"),
    "other model": (
        lambda folder: edit_config(folder, architectures=["LlamaForCausalLM"], auto_map={}),
        "holds LlamaForCausalLM, not InternLM-XComposer2",
    ),
    "no weights": (lambda folder: (folder / "pytorch_model.bin").unlink(), "holds no weights"),
    "shard cut": (break_shard, "cut short or not a torch checkpoint .1000000 bytes"),
    "lfs pointer": (
        lambda folder: (folder / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "git-lfs pointer",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.model").unlink(), "lacks tokenizer.model"),
    "no code": (lambda folder: (folder / "modeling_internlm_xcomposer2.py").unlink(), "lacks modeling_internlm"),
    "contradiction": (lambda folder: edit_config(folder, max_length=16384), "contradicts itself"),
}


@pytest.mark.parametrize("fault", SPOILED)
def test_bad_folder_is_refused_with_the_reason(folder, fault):
    spoil, message = SPOILED[fault]
    inspect(folder)
    spoil(folder)
    with pytest.raises(ConfigurationError, match=message):
        inspect(folder)


def test_missing_shard_of_an_index_is_named(folder):
    (folder / "pytorch_model.bin").rename(folder / "pytorch_model-00001-of-00002.bin")
    names = {f"t{i}": f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ConfigurationError, match="lacks the shards pytorch_model-00002-of-00002.bin"):
        inspect(folder)


def test_stale_index_beside_a_single_file_is_ignored(folder):
    """vl-1_8b is published with vl-7b's index."""
    names = {"t": "pytorch_model-00001-of-00002.bin"}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    assert [shard.name for shard in inspect(folder).shards] == ["pytorch_model.bin"]


def test_models_are_found_by_name_path_and_automatically(tmp_path, folder):
    assert find_model("auto", tmp_path).path == DEMO == find_model("demo", tmp_path).path
    assert find_model(str(folder), tmp_path).path == folder
    present = tmp_path / "internlm-xcomposer2-vl-1_8b"
    present.mkdir()
    assert find_model("auto", tmp_path).path == DEMO and find_model("vl-1_8b", tmp_path).is_to_come
    (present / "config.json").touch()
    assert find_model("auto", tmp_path).path == find_model("vl-1_8b", tmp_path).path == present
    assert find_model("vl-7b", tmp_path).is_to_come
    with pytest.raises(ConfigurationError, match="'vl-8b' is neither a folder nor one of: vl-7b, 7b"):
        find_model("vl-8b", tmp_path)


@pytest.mark.parametrize(
    ("size", "tokens"), [((640, 480), 3085), ((480, 640), 3097), ((64, 64), 3817), ((336, 336), 3817)]
)
def test_tiled_image_tokens(size, tokens):
    """640x480 gives the 3232 prompt tokens measured on a GPU: 147 of text and 3085."""
    assert catalogue.tiled_image_tokens(*size, catalogue.HD_NUM) == tokens


def test_the_tokens_of_a_picture_are_those_of_the_folders_own_tower(folder, tmp_path):
    assert inspect(DEMO).image_token_range(25) == (36, 36)
    edit_config(folder, lingbi_demo=None)  # the same tower, and no name of lingbi's
    assert inspect(folder).image_token_range(25) == (36, 36)
    for name, tokens in (("vl-7b", (1225, 1225)), ("7b", (256, 256)), ("4khd-7b", (1897, 4057))):
        found = inspect(published(tmp_path / name, name, 20 << 20)).image_token_range(25)
        assert found == tokens
