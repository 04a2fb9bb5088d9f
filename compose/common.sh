# Shared by up, down and memslot (sourced, in this folder): the engine's client and the file .env.
# shellcheck shell=bash

# COMPOSE: the command, as an array.
find_compose() {
  command -v docker >/dev/null || die "expected Docker, found no program docker"
  if docker compose version >/dev/null 2>&1; then
    COMPOSE=(docker compose)
  elif command -v docker-compose >/dev/null; then
    COMPOSE=(docker-compose)
  else
    die "expected Docker Compose (docker compose, or docker-compose 1.29), found neither"
  fi
  docker version >/dev/null 2>&1 || die "expected a Docker engine that answers, found none (docker version tells more)"
}

# Compose reads .env by itself: what one `up` wrote holds for every later command. Values stand in single quotes,
# between which nothing is expanded.
recall() {  # NAME
  [ ! -f .env ] || sed -n "s/^$1='\(.*\)'\$/\1/p" .env
}
remember() {  # NAME VALUE
  case $2 in *\'*) die "$1: expected no single quote, found $2" ;; esac
  { [ ! -f .env ] || grep -v "^$1=" .env || true; } >.env.new
  printf "%s='%s'\n" "$1" "$2" >>.env.new
  mv .env.new .env
}

# Ids of this project's containers, stopped ones too: containers [FILTER]. (Which ones `ps` lists differs between the
# two Composes; the labels are the same.)
containers() {
  docker ps -aq --filter "label=com.docker.compose.project=$(recall COMPOSE_PROJECT_NAME)" \
    --filter label=com.docker.compose.oneoff=False "${@/#/--filter=}"
}
