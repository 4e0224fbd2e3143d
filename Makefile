# Every target is one line into scripts/, so that each can be run and read on its own.
.PHONY: help demo test test-full soak bench lint generate lock clean

help:       ## say what there is
	@grep -E '^[a-z-]+: .*##' Makefile | sed -E 's/: +[^#]*## /\t/' | expand -t 14

demo:       ## install what is missing, start the host, boot an Arm VM (IMAGE=micro|debian)
	@scripts/demo

test:       ## format, lint, types, import contracts, unit and system tests (under 10 minutes on 2 cores)
	@scripts/test

test-full:  ## full Debian guest and long fault loops (about 50 minutes on 2 cores)
	@scripts/test-full

soak:       ## the fault loops at length: make soak SEEDS=10
	@scripts/soak

bench:      ## measure against raw QEMU, libvirt and kube-apiserver; writes docs/performance.md
	@scripts/bench

lint:       ## only format, lint, types, contracts and generated files
	@scripts/lint

generate:   ## write docs/api.md and deploy/crds from the models
	@scripts/generate

lock:       ## pin the dependencies anew (needs uv)
	@scripts/lock

clean:      ## remove what the scripts made in this folder
	@scripts/clean
