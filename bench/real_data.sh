#!/usr/bin/env bash
# Imports real hearts and a real brain into runs/real-data, for bench/real_data.toml. See docs/real-data.md.
#
#   RECONSENT_REAL_DATA=DIRECTORY bash bench/real_data.sh
#
# DIRECTORY holds cardiac_sunnybrook/sunnybrook_sax.npz, brain_colin27_mricron/ch2.nii.gz and
# sigpy_brain8ch_kspace/derived_espirit.npz.
set -euo pipefail
source="${RECONSENT_REAL_DATA:?say where the real data are}"
target="${1:-runs/real-data}"
hearts="$source/cardiac_sunnybrook/sunnybrook_sax.npz"
key="$target/pseudonyms.key"

patients() { # of the hearts, whose identifiers match the pattern
  "${PYTHON:-python}" - "$hearts" "$1" <<'PY'
import re, sys
import numpy as np
names = sorted({str(name) for name in np.load(sys.argv[1])["patient_id"]})
print(" ".join(f"--patient {name}" for name in names if re.match(sys.argv[2], name)))
PY
}

mkdir -p "$target"
# shellcheck disable=SC2046 # one word an option
reconsent data import "$hearts" "$target/heart-failure" --organ heart $(patients "SC-HF") \
  --crop 128x128 --matrix 64x64 --slice-step 4 --seed 1 --key-file "$key"
# shellcheck disable=SC2046
reconsent data import "$hearts" "$target/heart-other" --organ heart $(patients "SC-(HYP|N-)") \
  --crop 128x128 --matrix 64x64 --slice-step 4 --seed 2 --key-file "$key"
# One person, so split by slab; coil sensitivities are real ones, of another scanner and head.
reconsent data import "$source/brain_colin27_mricron/ch2.nii.gz" "$target/brain" --organ brain \
  --crop 216x216 --matrix 64x64 --slices 30:150 --slice-step 2 --slabs 12 \
  --coil-maps "$source/sigpy_brain8ch_kspace/derived_espirit.npz" --coils 4 --key-file "$key"
