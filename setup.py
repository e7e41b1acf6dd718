"""Builds the compiled core; all else about the package is in pyproject.toml.

WSEV_SANITIZE=1 builds it with AddressSanitizer and UndefinedBehaviorSanitizer, WSEV_ANNOTATE=1 writes Cython's HTML.
WSEV_CORE=built leaves out the core: an editable install would compile it all again, though it lies in place.
"""

import os
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

# Each module and the C files it is linked with.  Explicit: a forgotten file is an error here, not a smaller wheel.
MODULES = {
    "buffers": [],
    "frames": ["mask.c"],
    "rules": [],
    "messages": ["utf8.c"],
    "loop": [],
    "addresses": [],
    "descriptor": [],
    "output": [],
    "asyncio_output": [],
    "writer": [],
    "eager": [],
    "dispatch": [],
    "closer": [],
    "receiver": [],
    "timeouts": [],
    "connection": [],
    "head": [],
}
if sys.platform == "linux":
    MODULES |= {"ring": [], "poller": [], "transport": [], "acceptor": []}

SANITIZE = os.environ.get("WSEV_SANITIZE") == "1"
ANNOTATE = os.environ.get("WSEV_ANNOTATE") == "1"
IS_BUILT = os.environ.get("WSEV_CORE") == "built"
# Each kind of build has its own generated C: what differs between them does not show in the sources' times.
BUILD_DIR = "build/sanitize/cython" if SANITIZE else "build/annotate/cython" if ANNOTATE else "build/cython"

FLAGS = ["-std=c11", "-Wall", "-Wextra"]
LINK_FLAGS = []
if SANITIZE:
    # Not recovering: a report ends the process, and with it the test, instead of scrolling by.
    SANITIZERS = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
    # Against Python's own flags: with -fwrapv no signed overflow is undefined, with -DNDEBUG its macros assert nothing.
    FLAGS += ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv", "-UNDEBUG", *SANITIZERS]
    LINK_FLAGS += SANITIZERS
else:
    FLAGS += ["-O3"]

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "auto_pickle": False,
    "autotestdict": False,
    "embedsignature": False,
}

extensions = [
    Extension(
        f"wsev._core.{name}",
        [f"wsev/_core/{name}.pyx", *(f"wsev/_core/c/{source}" for source in sources)],
        include_dirs=["wsev/_core/c"],
        depends=[f"wsev/_core/c/{source.replace('.c', '.h')}" for source in sources],
        extra_compile_args=FLAGS,
        extra_link_args=LINK_FLAGS,
    )
    for name, sources in MODULES.items()
]

setup(
    ext_modules=[]
    if IS_BUILT
    else cythonize(
        extensions,
        build_dir=BUILD_DIR,
        compiler_directives=DIRECTIVES,
        annotate=ANNOTATE,
        emit_linenums=SANITIZE,
    ),
    options={"build_ext": {"parallel": os.cpu_count()}},
)
