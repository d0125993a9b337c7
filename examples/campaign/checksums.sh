#!/bin/sh
# Checksums of the input data, for a transfer that is to be verified: `sha256 bytes name`.
set -eu
while read -r turl; do
  name=${turl##*/}
  sum=$(sha256sum "$name")
  printf '%s %s %s\n' "${sum%% *}" "$(wc -c <"$name")" "${turl#alien://}"
done <inputs.txt | sort -k 3 >checksums.txt
cat checksums.txt
