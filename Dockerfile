# The image of `forebay` and `forebay-operator`: docker build -t REGISTRY/forebay:TAG .
#
# It is not built by the project's CI, which has no container engine: tests run an image of the same layout, made by e2e/stack/kubernetes/image.py.

FROM rust:1.95.0-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Debian keeps no old versions of its packages: pinned ones could not be installed any more after the next update.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake libclang-dev libssl-dev pkg-config zlib1g-dev libzstd-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --workspace --profile dist --locked --bins --examples \
 && mkdir -p /out/bin /out/lib \
 && cp target/dist/forebay target/dist/forebay-operator /out/bin/ \
 # The C libraries that they name; glibc and its like are in the image below.
 && ldd /out/bin/* | grep -oE '/[^ ]*/lib(ssl|crypto|z|zstd)\.so[^ ]*' | sort -u | xargs -r -I{} cp -L {} /out/lib/

# glibc, libgcc, libstdc++ and the usual certificate authorities; no shell, no package manager; user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/lib/ /usr/local/lib/
COPY --from=build /out/bin/ /usr/local/bin/
ENV LD_LIBRARY_PATH=/usr/local/lib
USER 65532:65532
