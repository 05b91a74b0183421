# ringprobe in a container: built from source, run by an ordinary user, on a small Debian.
#
#   docker build -t ringprobe .        # with BuildKit, the default since Docker 23
#   docker run --security-opt seccomp=deploy/seccomp.json --ulimit memlock=-1 --ulimit nofile=1048576 \
#       --network host -e DATABASE_URL=postgres://… -v ./endpoints.toml:/etc/ringprobe/endpoints.toml:ro ringprobe
#
# Two settings that only the engine can give, and without which there is no ring:
#
# seccomp   Docker since 25.0, containerd since 2.0 and Podman forbid io_uring by default; the symptom is EPERM.
#           `deploy/make-seccomp` makes a profile that is the engine's own plus io_uring_setup, io_uring_enter
#           and io_uring_register, and nothing else. (`seccomp=unconfined` works too, and gives up much more.)
#           The host's sysctl kernel.io_uring_disabled must be 0.
# memlock   glommio asks for 512 KiB of lockable memory at least; some engines give 64 KiB.
#
# And two that are worth having: nofile, one descriptor per connection; and `--cpuset-cpus`, whole CPUs, because a
# quota (`--cpus`) stops every thread at once for the rest of its period, which shows as lag.
# `docker run … ringprobe doctor` says what is missing.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin ringprobe \
    && install -D target/release/ringprobe /out/ringprobe

FROM debian:bookworm-slim
COPY --from=build /out/ringprobe /usr/local/bin/ringprobe
COPY --chmod=0755 deploy/docker-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
RUN groupadd --system --gid 10001 ringprobe \
    && useradd --system --uid 10001 --gid ringprobe --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin ringprobe \
    && install --directory --owner=ringprobe --group=ringprobe /var/lib/ringprobe
USER 10001:10001
# Without a store in the environment, `sqlite:ringprobe.db` lands here.
WORKDIR /var/lib/ringprobe
VOLUME /var/lib/ringprobe
STOPSIGNAL SIGTERM
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["run", "/etc/ringprobe/endpoints.toml"]
