"""Child processes that run Python: no less safe than the node, and gone with it.

A child takes nothing from the directory in which the node was started: with `PYTHONSAFEPATH` (Python 3.11 and later) a
file `queue.py` there is not imported in place of the library's. It gets the variables of the environment that it
needs, and no secret: `/proc/PID/environ` and a core file show a process's environment, and foreign code in a child
could read it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import site
import sys
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

HERE = str(Path(__file__).parents[1])
"""Where the packages of this program lie."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent ends."""

COMMON = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "TEMP", "TMP", "PYTHON*",
    "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_*", "MALLOC_*", "XDG_CACHE_HOME",
    "OMP_*", "KMP_*", "GOMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*", "VECLIB_*",
)  # fmt: skip
"""What every child needs: names, or patterns of names."""

COMPUTE = (
    "CUDA_*", "NVIDIA_*", "NCCL_*", "GLOO_*", "UCX_*", "TORCH*", "PYTORCH_*", "TRITON_*", "VLLM_*", "FLASHINFER_*",
    "BNB_*", "BITSANDBYTES_*", "HIP_*", "HSA_*", "ROCM_*", "ROCR_*", "MIOPEN_*", "GPU_*", "ACCELERATE_*",
    "TRANSFORMERS_*", "TOKENIZERS_PARALLELISM", "SAFETENSORS_*",
)  # fmt: skip
"""What computing on accelerators needs besides."""

DOWNLOAD = (
    "HF_*", "XDG_CONFIG_HOME", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy",
    "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip
"""What fetching from the Hugging Face hub needs besides; without a token."""

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Keeps the current directory out of where Python imports from."""

SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSPHRASE", "CREDENTIAL", "KEY")
"""A pattern never takes a variable whose name has one of these words."""


def child_environment(
    environ: Mapping[str, str], passed: Iterable[str], python: str = sys.executable, **given: str
) -> dict[str, str]:
    """Return the environment of a child: what `passed` names of `environ`, then what is `given`.

    `passed` are names, or patterns with `*`. `python` is the interpreter that will run: another one than this has no
    installation of this program, and finds the one that runs here.
    """
    names = [*COMMON, *passed]
    environment = {key: value for key, value in environ.items() if _is_passed(key, names)}
    search = [part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    if python != sys.executable or HERE not in site.getsitepackages():
        search.insert(0, HERE)
    return {**environment, "PYTHONPATH": os.pathsep.join(search), **SAFE_PATH, **given}


def _is_passed(variable: str, names: Iterable[str]) -> bool:
    secret = any(word in variable.upper() for word in SECRET_WORDS)
    return any(variable == name or (not secret and fnmatchcase(variable, name)) for name in names)


def end_with(parent: int) -> None:
    """Have the kernel (Linux) kill this process when its parent ends, also if that ended before we could ask.

    The thread that started the process counts as the parent: it must live as long as the process may.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
