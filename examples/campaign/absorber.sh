#!/bin/sh
# Muons through the front absorber, in awk: they lose energy and scatter; which ones arrive?
#
# absorber.sh SEED MUONS
set -eu
awk -v seed="$1" -v muons="$2" '
  # The smallest of awks has no sqrt.
  function root(x,  r, i) { r = x + 1; for (i = 0; i < 40; i++) r = (r + x / r) / 2; return r }
  function gauss(  sum, i) { for (i = 0; i < 12; i++) sum += rand(); return sum - 6 }
  BEGIN {
    srand(seed)
    for (n = 0; n < muons; n++) {
      energy = 20 * rand()  # GeV
      angle = 0
      for (slice = 0; slice < 10 && energy > 0.2; slice++) {
        energy -= 0.35 * (1 + 0.1 * gauss())
        if (energy > 0.2) angle += 0.0333 / energy * gauss()  # 6 radiation lengths a slice
      }
      if (energy > 0.2) { through++; squares += angle * angle }
    }
    printf "%d muons, %d through, scattered by %.1f mrad (rms)\n",
      muons, through, 1000 * root(squares / through)
    exit through < muons / 2
  }' >absorber.txt
cat absorber.txt
