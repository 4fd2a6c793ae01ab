# Short names for the project's commands. Anything with an `if` in it is a test, or belongs into xtask.

# what CI runs
verify:
    bash .ci/run

# everything that needs no cluster
test:
    cargo test --workspace

# golden files, docs/reference and the README's demo, written anew
bless:
    UPDATE_EXPECT=1 cargo test --workspace

lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

demo:
    cargo run --release -p kubenap -- demo

# the stories on a real Kubernetes; needs root
e2e *ARGS:
    cargo xtask e2e {{ARGS}}

# the container image
image *ARGS:
    cargo xtask image {{ARGS}}

# licences, sources, doubled crates; spelling; dependencies that nobody uses
audit:
    cargo deny check
    typos
    cargo machete
