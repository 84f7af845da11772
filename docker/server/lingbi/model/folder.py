"""Recognises a folder with an InternLM-XComposer2 model by its contents, and checks that it is complete."""

import json
import re
import struct
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from lingbi.errors import ConfigurationError
from lingbi.model import catalogue

ARCHITECTURE = "InternLMXComposer2ForCausalLM"
NEEDED_FILES = ("config.json", "tokenizer.model", "tokenizer_config.json")
NUMBERED = re.compile(r"(.+)-\d{5}-of-(\d{5})\.\w+")
RELATIVE_IMPORT = re.compile(r"^\s*from\s+\.(\w+)\s+import\b", re.MULTILINE)  # the same pattern that transformers uses


@dataclass(frozen=True)
class ModelFolder:
    """A checked model folder.

    path: absolute, links resolved; served_name: the model's id in the API; template: lmdeploy's
    chat template; session_len: tokens; weight_bytes: size of the checkpoint shards.
    """

    path: Path
    config: dict[str, Any]
    served_name: str
    template: str
    session_len: int
    shards: tuple[Path, ...]
    weight_bytes: int

    @property
    def is_demo(self) -> bool:
        return "lingbi_demo" in self.config

    @property
    def is_tiled(self) -> bool:
        return catalogue.is_4khd(self.config)

    @property
    def geometry(self) -> catalogue.Geometry:
        return catalogue.Geometry.of(self.config)

    @property
    def image_side(self) -> int | None:
        """Side in pixels of the square that an image is resized to; None if the model uses tiles."""
        return catalogue.image_side(self.config)

    def image_token_range(self, hd_num: int) -> tuple[int, int]:
        """The fewest and the most prompt tokens of an image. A tower may have patches and images of its own, as the demo's has."""
        tower = self.config.get("vision_config")
        if tower and catalogue.recognise(self.config) is None:
            tokens = (tower["image_size"] // tower["patch_size"]) ** 2
            return tokens, tokens
        return catalogue.image_token_range(self.image_side, hd_num)

    def link_in(self, links_dir: Path) -> Path:
        """A link to the folder under a name that transformers and lmdeploy handle well.

        Both read meaning into the path: a trailing slash, a dot or another model's name in it breaks
        remote code or picks a wrong chat template, and two folders of one name share cached code.
        """
        digest = sha256(str(self.path).encode()).hexdigest()[:8]
        link = links_dir.absolute() / f"{self.template.replace('-', '_')}_{digest}"
        links_dir.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(self.path, target_is_directory=True)
        return link


def inspect(path: str | Path) -> ModelFolder:
    """Check a model folder without loading it.

    Raises ConfigurationError, which says what is missing or wrong, where, and what to do.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise ConfigurationError(f"model folder {folder} {what}; give the folder that holds config.json")
    folder = folder.resolve()
    config = read_config(folder / "config.json")
    check_architecture(folder, config)
    shards = _shards(folder)
    _check_files(folder, config)
    for shard in shards:
        _check_shard(shard)
    tiled = catalogue.is_4khd(config)
    known = catalogue.recognise(config)
    name = catalogue.DEMO_SERVED_NAME if "lingbi_demo" in config else known.served_name if known else folder.name
    return ModelFolder(
        path=folder,
        config=config,
        served_name=name,
        template=catalogue.TEMPLATE_4KHD if tiled else catalogue.TEMPLATE,
        session_len=catalogue.SESSION_LEN_4KHD if tiled else catalogue.SESSION_LEN,
        shards=shards,
        weight_bytes=sum(shard.stat().st_size for shard in shards),
    )


def read_config(file: Path) -> dict[str, Any]:
    """Read a config.json. Raises ConfigurationError if the file is missing or is not a model's config."""
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigurationError(
            f"{file.parent} holds no config.json: it is not a model folder, or the download stopped early; fetch it again"
        ) from None
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"{file} cannot be read as JSON ({error}); fetch it again") from None
    if not isinstance(config, dict) or not config.get("architectures"):
        raise ConfigurationError(f"{file} names no architecture; fetch it again")
    return config


def check_architecture(folder: Path | str, config: dict[str, Any]) -> None:
    """Raise ConfigurationError if the config is of another kind of model; folder (or model id): named in the error."""
    remote_classes = [value for value in config.get("auto_map", {}).values() if isinstance(value, str)]
    if not any(value.endswith(ARCHITECTURE) for value in remote_classes):
        raise ConfigurationError(
            f"{folder} holds {config['architectures'][0]}, not InternLM-XComposer2: its config.json maps no "
            f"{ARCHITECTURE}; lingbi serves vl-7b, 7b, 4khd-7b, vl-1_8b and the demo model"
        )
    tiled_by_length = config.get("max_length") == catalogue.SESSION_LEN_4KHD
    if catalogue.is_4khd(config) != tiled_by_length:
        raise ConfigurationError(
            f"{folder}/config.json contradicts itself: architectures[0]={config['architectures'][0]!r} with "
            f"max_length={config.get('max_length')}; 4khd-7b has 'InternLM2ForCausalLM' with {catalogue.SESSION_LEN_4KHD}, "
            f"the others '{ARCHITECTURE}' with {catalogue.SESSION_LEN} (lmdeploy decides by both); fetch the published file"
        )


def _shards(folder: Path) -> tuple[Path, ...]:
    """Checkpoint shards in the order in which lmdeploy reads them (safetensors win).

    An index that names absent shards counts only beside other numbered shards: vl-1_8b is
    published with another model's index beside its single file.
    """
    shards = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not shards:
        raise ConfigurationError(f"{folder} holds no weights (pytorch_model*.bin); fetch the model again")
    named: set[str] = set().union(*map(_indexed, folder.glob("*.index.json")), *map(_siblings, shards))
    missing = sorted(name for name in named if not (folder / name).exists())
    if missing and shards != [folder / "pytorch_model.bin"]:
        raise ConfigurationError(
            f"{folder} lacks the shards {', '.join(missing)}; the download is not complete, fetch it again"
        )
    return tuple(shards)


def _indexed(index: Path) -> set[str]:
    """The shards that an index names."""
    try:
        return set(map(str, json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        raise ConfigurationError(f"{index} is cut short or no index of shards ({error!r}); fetch it again") from None


def _siblings(shard: Path) -> set[str]:
    """The names of all shards, derived from the name of one: X-00001-of-00002.bin."""
    numbered = NUMBERED.fullmatch(shard.name)
    if not numbered:
        return set()
    return {f"{numbered[1]}-{number:05d}-of-{numbered[2]}{shard.suffix}" for number in range(1, int(numbered[2]) + 1)}


def _check_files(folder: Path, config: dict[str, Any]) -> None:
    code = _mapped_code(config) | _mapped_code(_read_tokenizer_config(folder))
    missing = sorted(name for name in {*NEEDED_FILES, *_imported(folder, code)} if not (folder / name).is_file())
    if missing:
        raise ConfigurationError(f"{folder} lacks {', '.join(missing)}; the download is not complete, fetch it again")


def _mapped_code(config: dict[str, Any]) -> set[str]:
    """The files of remote code that an `auto_map` names: {"AutoModel": "file.Class"}, or a pair of them for a tokenizer."""
    values = [value if isinstance(value, list) else [value] for value in config.get("auto_map", {}).values()]
    return {name.split(".")[0] + ".py" for value in values for name in value if isinstance(name, str)}


def _read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """A tokenizer_config.json, or {} if there is none: `_check_files` reports it with the other missing files."""
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text())
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"{file} cannot be read as JSON ({error}); fetch it again") from None
    if not isinstance(config, dict) or not isinstance(config.get("auto_map", {}), dict):
        raise ConfigurationError(f"{file} holds no settings of a tokenizer; fetch it again")
    return config


def _imported(folder: Path, code: set[str]) -> set[str]:
    """These files of remote code and all files in the folder that they import, directly or indirectly."""
    seen: set[str] = set()
    left = set(code)
    while left:
        name = left.pop()
        seen.add(name)
        if (folder / name).is_file():
            text = (folder / name).read_text(errors="replace")
            left |= {f"{module}.py" for module in RELATIVE_IMPORT.findall(text)} - seen
    return seen


def _check_shard(shard: Path) -> None:
    """Raise ConfigurationError for a shard that is not complete: a truncated file fails the check of its format."""
    with shard.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise ConfigurationError(
            f"{shard} is a git-lfs pointer, not weights; run `git lfs pull` there or fetch the model"
        )
    is_whole = _is_safetensors if shard.suffix == ".safetensors" else zipfile.is_zipfile
    if not is_whole(shard):
        kind = "safetensors file" if shard.suffix == ".safetensors" else "torch checkpoint"
        raise ConfigurationError(f"{shard} is cut short or not a {kind} ({shard.stat().st_size} bytes); fetch it again")
    if shard.suffix != ".safetensors" and not _holds_tensors(shard):
        raise ConfigurationError(f"{shard} is a zip of something else, not a torch checkpoint; fetch it again")


def _holds_tensors(shard: Path) -> bool:
    """Whether a zip is what torch.save writes: NAME/data.pkl and the tensors' bytes."""
    try:
        with zipfile.ZipFile(shard) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _is_safetensors(shard: Path) -> bool:
    """Whether the file is as long as its header says (8 bytes of length, JSON, tensors; all little-endian)."""
    size = shard.stat().st_size
    try:
        with shard.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            tensors = json.loads(file.read(length)) if length < size else {}
        ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        return bool(8 + length + max(ends) == size)
    except (struct.error, ValueError, LookupError, TypeError, AttributeError):
        return False
