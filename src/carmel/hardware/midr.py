"""Names of Arm cores by MIDR_EL1 (Arm Architecture Reference Manual, DDI 0487, D19.2 "MIDR_EL1").

Implementer codes are assigned by Arm (the same section). Part numbers of Arm's own cores are in each core's Technical
Reference Manual, "MIDR_EL1"; those of others, who mostly publish none, are taken as Linux
(arch/arm64/include/asm/cputype.h, 6.18), GCC (gcc/config/aarch64/aarch64-cores.def) and util-linux
(sys-utils/lscpu-arm.c) agree on them, or as the one of the three that has them.
"""

from __future__ import annotations

from dataclasses import dataclass

ARM = 0x41
_APM = 0x50
_APM_PART = 0x000
_EMAG_VARIANT = 3

IMPLEMENTERS = {
    ARM: "Arm",
    0x42: "Broadcom",
    0x43: "Cavium",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    _APM: "Applied Micro",
    0x51: "Qualcomm",
    0x53: "Samsung",
    0x56: "Marvell",
    0x61: "Apple",
    0x69: "Intel",
    0x6D: "Microsoft",
    0x70: "Phytium",
    0xC0: "Ampere",
}

PARTS: dict[int, dict[int, str]] = {
    ARM: {
        0xD02: "Cortex-A34",
        0xD03: "Cortex-A53",
        0xD04: "Cortex-A35",
        0xD05: "Cortex-A55",
        0xD06: "Cortex-A65",
        0xD07: "Cortex-A57",
        0xD08: "Cortex-A72",
        0xD09: "Cortex-A73",
        0xD0A: "Cortex-A75",
        0xD0B: "Cortex-A76",
        0xD0C: "Neoverse-N1",
        0xD0D: "Cortex-A77",
        0xD0E: "Cortex-A76AE",
        0xD40: "Neoverse-V1",
        0xD41: "Cortex-A78",
        0xD42: "Cortex-A78AE",
        0xD43: "Cortex-A65AE",
        0xD44: "Cortex-X1",
        0xD46: "Cortex-A510",
        0xD47: "Cortex-A710",
        0xD48: "Cortex-X2",
        0xD49: "Neoverse-N2",
        0xD4A: "Neoverse-E1",
        0xD4B: "Cortex-A78C",
        0xD4C: "Cortex-X1C",
        0xD4D: "Cortex-A715",
        0xD4E: "Cortex-X3",
        0xD4F: "Neoverse-V2",
        0xD80: "Cortex-A520",
        0xD81: "Cortex-A720",
        0xD82: "Cortex-X4",
        0xD83: "Neoverse-V3AE",
        0xD84: "Neoverse-V3",
        0xD85: "Cortex-X925",
        0xD87: "Cortex-A725",
        0xD89: "Cortex-A720AE",
        0xD8E: "Neoverse-N3",
    },
    0x42: {0x100: "Brahma-B53", 0x516: "ThunderX2 (Vulcan)"},
    0x43: {
        0x0A0: "ThunderX",
        0x0A1: "ThunderX CN88XX",
        0x0A2: "ThunderX CN81XX",
        0x0A3: "ThunderX CN83XX",
        0x0AF: "ThunderX2 CN99XX",
        0x0B0: "OcteonTX2",
        0x0B1: "OcteonTX2 CN98XX",
        0x0B2: "OcteonTX2 CN96XX",
        0x0B3: "OcteonTX2 CNF95XX",
        0x0B4: "OcteonTX2 CNF95XXN",
        0x0B5: "OcteonTX2 CNF95XXMM",
        0x0B6: "OcteonTX2 CNF95XXO",
        0x0B8: "ThunderX3 T110",
    },
    0x46: {0x001: "A64FX"},
    0x48: {0xD01: "TaiShan v110", 0xD02: "HIP09", 0xD06: "HIP12", 0xD40: "Cortex-A76 (HiSilicon)"},
    0x4E: {0x000: "Denver", 0x003: "Denver 2", 0x004: "Carmel", 0x010: "Olympus"},
    _APM: {_APM_PART: "X-Gene"},
    0x51: {
        0x001: "Oryon",
        0x200: "Kryo",
        0x201: "Kryo",
        0x205: "Kryo",
        0x211: "Kryo",
        0x800: "Falkor v1 or Kryo 2xx Gold",
        0x801: "Kryo 2xx Silver",
        0x802: "Kryo 3xx Gold",
        0x803: "Kryo 3xx Silver",
        0x804: "Kryo 4xx Gold",
        0x805: "Kryo 4xx Silver",
        0xC00: "Falkor",
        0xC01: "Saphira",
    },
    0x53: {0x001: "Exynos-M1", 0x002: "Exynos-M3", 0x003: "Exynos-M4", 0x004: "Exynos-M5"},
    0x61: {
        0x020: "Icestorm (A14)",
        0x021: "Firestorm (A14)",
        0x022: "Icestorm (M1)",
        0x023: "Firestorm (M1)",
        0x024: "Icestorm (M1 Pro)",
        0x025: "Firestorm (M1 Pro)",
        0x028: "Icestorm (M1 Max)",
        0x029: "Firestorm (M1 Max)",
        0x030: "Blizzard (A15)",
        0x031: "Avalanche (A15)",
        0x032: "Blizzard (M2)",
        0x033: "Avalanche (M2)",
        0x034: "Blizzard (M2 Pro)",
        0x035: "Avalanche (M2 Pro)",
        0x038: "Blizzard (M2 Max)",
        0x039: "Avalanche (M2 Max)",
    },
    0x6D: {0xD49: "Azure Cobalt 100"},
    0x70: {0x660: "FTC660", 0x661: "FTC661", 0x662: "FTC662", 0x663: "FTC663"},
    0xC0: {0xAC3: "Ampere-1", 0xAC4: "Ampere-1A"},
}


@dataclass(frozen=True, slots=True, order=True)
class Midr:
    """The fields of MIDR_EL1 that tell cores apart."""

    implementer: int
    part: int
    variant: int
    revision: int

    @classmethod
    def decode(cls, register: int) -> Midr:
        """Implementer [31:24], variant [23:20], architecture [19:16], part [15:4], revision [3:0]."""
        return cls(
            implementer=register >> 24 & 0xFF,
            part=register >> 4 & 0xFFF,
            variant=register >> 20 & 0xF,
            revision=register & 0xF,
        )

    @property
    def register(self) -> int:
        """Architecture is 0xF: "defined by ID registers", as on every Armv8 core."""
        return self.implementer << 24 | self.variant << 20 | 0xF << 16 | self.part << 4 | self.revision

    @property
    def name(self) -> str:
        """``Cortex-A72``; for what nobody has named here, what is known: ``HiSilicon, part 0xd03``."""
        if (self.implementer, self.part, self.variant) == (_APM, _APM_PART, _EMAG_VARIANT):
            return "eMAG"
        named = PARTS.get(self.implementer, {}).get(self.part)
        if named is not None:
            return named
        maker = IMPLEMENTERS.get(self.implementer, f"implementer {self.implementer:#04x}")
        return f"{maker}, part {self.part:#05x}"
