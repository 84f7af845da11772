"""Recognises and checks a folder that holds an InternLM-XComposer2 model, by what it contains."""

import json
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from lingbi import catalogue
from lingbi.errors import ConfigurationError

ARCHITECTURE = "InternLMXComposer2ForCausalLM"
NEEDED_FILES = ("config.json", "tokenizer.model", "tokenizer_config.json")


@dataclass(frozen=True)
class ModelFolder:
    """A checked model folder.

    path: absolute, links resolved; served_name: the model's id in the API; template: lmdeploy's
    chat template; session_len: tokens; weight_bytes: size of the checkpoint shards.
    """

    path: Path
    config: dict
    served_name: str
    template: str
    session_len: int
    shards: tuple
    weight_bytes: int

    @property
    def is_demo(self) -> bool:
        return "lingbi_demo" in self.config

    @property
    def is_tiled(self) -> bool:
        return catalogue.is_4khd(self.config)

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


def inspect(path) -> ModelFolder:
    """Check a model folder without loading it.

    Raises ConfigurationError that says what is missing or wrong, where, and what to do.
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


def read_config(file: Path) -> dict:
    """A config.json. Raises ConfigurationError where it cannot be one."""
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


def check_architecture(folder, config: dict) -> None:
    """Raise ConfigurationError for a config of another kind of model; folder (or model id) is for people."""
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


def _shards(folder: Path) -> tuple:
    """Checkpoint shards in the order in which lmdeploy reads them (safetensors win).

    An index that names absent shards counts only beside other numbered shards: vl-1_8b is
    published with another model's index beside its single file.
    """
    shards = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not shards:
        raise ConfigurationError(f"{folder} holds no weights (pytorch_model*.bin); fetch the model again")
    single = folder / "pytorch_model.bin"
    for index in folder.glob("*.index.json"):
        named = set(json.loads(index.read_text())["weight_map"].values())
        missing = sorted(name for name in named if not (folder / name).exists())
        if missing and shards != [single]:
            raise ConfigurationError(
                f"{folder} lacks {', '.join(missing)} named in {index.name}; fetch the model again"
            )
    return tuple(shards)


def _check_files(folder: Path, config: dict) -> None:
    code = {value.split(".")[0] + ".py" for value in config["auto_map"].values() if isinstance(value, str)}
    missing = sorted(name for name in (*NEEDED_FILES, *code) if not (folder / name).is_file())
    if missing:
        raise ConfigurationError(f"{folder} lacks {', '.join(missing)}; the download is not complete, fetch it again")


def _check_shard(shard: Path) -> None:
    """A shard is a zip archive (torch) whose end is there; a cut file has no end record."""
    if shard.suffix == ".safetensors":
        return
    with shard.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise ConfigurationError(
            f"{shard} is a git-lfs pointer, not weights; run `git lfs pull` there or fetch the model"
        )
    if not zipfile.is_zipfile(shard):
        size = shard.stat().st_size
        raise ConfigurationError(f"{shard} is cut short or not a torch checkpoint ({size} bytes); fetch it again")
