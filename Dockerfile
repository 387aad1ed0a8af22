# One image for the three services: the command says which. Built for Cloud Run (linux/amd64).
# Debian 12 has glibc 2.36 on both sides: a program must not be built against a newer one than it runs with.
# Pinned by digest: what was built once can be built again. `docker buildx imagetools inspect IMAGE` tells a newer one.
FROM rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
WORKDIR /src
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY . .
# The caches keep dependencies between builds; the programs are copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --bins \
      --package tasuki-splitter --package tasuki-generator --package tasuki-loader \
      --features tasuki-splitter/cloud,tasuki-generator/cloud,tasuki-loader/cloud \
 && mkdir /programs \
 && cp target/dist/tasuki-splitter target/dist/tasuki-generator target/dist/tasuki-loader /programs/

# No shell, no package manager; certificates and glibc are there. 65532 is its `nonroot`, by number for admission policies.
FROM gcr.io/distroless/cc-debian12:nonroot@sha256:9dac0a79194e45a7da0158a9c6da57b217585af0786db3845d1f0ec1a0dd182f
COPY --from=build /programs/ /usr/local/bin/
USER 65532:65532
# Liveness is Cloud Run's probe (GET /live): there is no shell here to ask with.
HEALTHCHECK NONE
# No ENTRYPOINT: Cloud Run's command is tasuki-splitter, tasuki-generator or tasuki-loader.
CMD ["tasuki-generator"]
