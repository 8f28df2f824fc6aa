"""Other names of the catalog's device types: what people say, what `nvidia-smi` prints, and Ray's own strings
(`ray.util.accelerators`, the value of the label `ray.io/accelerator-type`)."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Ambiguous short names (`A100`) mean the variant that clouds rent under that name; the first of a family.
ALIASES: Mapping[str, str] = {
    "k80": "K80",
    "p100": "P100-PCIE-16GB",
    "v100": "V100-SXM2-16GB",
    "v100-16gb": "V100-SXM2-16GB",
    "v100-32gb": "V100-SXM2-32GB",
    "t4": "T4",
    "2080ti": "RTX-2080Ti",
    "rtx-2080-ti": "RTX-2080Ti",
    "rtx-6000": "RTX6000-Turing",
    "a6000": "RTX-A6000",
    "rtxa6000": "RTX-A6000",
    "a10": "A10",
    "a10g": "A10G",
    "a100": "A100-SXM4-40GB",
    "a100-40g": "A100-SXM4-40GB",
    "a100-40gb": "A100-SXM4-40GB",
    "a100-80g": "A100-SXM4-80GB",
    "a100-80gb": "A100-SXM4-80GB",
    "a100-80gb-pcie": "A100-PCIE-80GB",
    "l4": "L4",
    "l40s": "L40S",
    "h100": "H100-SXM5-80GB",
    "h100-80gb": "H100-SXM5-80GB",
    "h100-80gb-hbm3": "H100-SXM5-80GB",
    "h100-pcie": "H100-PCIE-80GB",
    "h100-nvl": "H100-NVL-94GB",
    "h200": "H200-SXM5-141GB",
    "b200": "B200-SXM-180GB",
    "tpu-v5litepod": "TPU-v5e",
    "tpuv2": "TPU-v2",
    "tpuv3": "TPU-v3",
    "tpuv4": "TPU-v4",
    "tpuv5e": "TPU-v5e",
    "tpuv5p": "TPU-v5p",
    "tpuv6e": "TPU-v6e",
    "v5e": "TPU-v5e",
    "v5p": "TPU-v5p",
    "v6e": "TPU-v6e",
    "inf1": "Inferentia1",
    "inf2": "Inferentia2",
    "trn1": "Trainium1",
    "trainium": "Trainium1",
    "inferentia": "Inferentia2",
    "f1": "FPGA-VU9P",
    "f2": "FPGA-VU47P",
    "alveo-u250": "FPGA-Alveo-U250",
    "cpus": "cpu",
}

_BRANDS = re.compile(r"^(nvidia|tesla|geforce|quadro|google|aws|amd|xilinx)-")


def normalise(name: str) -> str:
    """A name in lower case, words joined by `-`, without the maker's brand."""
    text = re.sub(r"[\s_]+", "-", name.strip().lower())
    while (shorter := _BRANDS.sub("", text)) != text:
        text = shorter
    return text
