#!/bin/sh
# What h2specd calls for each of its cases: one request to the URL, made in the client's pod.
exec timeout 4 nsenter --net="/proc/$CLIENT/ns/net" \
    "$CURL" --silent --max-time 3 --output /dev/null --http2-prior-knowledge "$1"
