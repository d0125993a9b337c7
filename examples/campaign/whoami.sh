#!/bin/sh
# What a payload sees of itself: ids, namespaces, environment. The names only of credentials.
echo "uid $(id -u), gid $(id -g), pid $$"
echo "work directory $(pwd), home $HOME"
for kind in user pid mnt net; do
  echo "$kind namespace $(readlink /proc/self/ns/$kind)"
done
echo "processes in sight: $(ls -d /proc/[0-9]* | wc -l)"
env | sed -n 's/^\(ALIEN_[A-Z_]*\|JALIEN_[A-Z_]*\|X509_[A-Z_]*\)=.*/\1/p' | sort
