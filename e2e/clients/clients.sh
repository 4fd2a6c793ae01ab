#!/bin/bash
# What curl and wget meet at a URL whose app sleeps: all at once, one line for each client and kind of request.
#   clients.sh BASE-URL   prints CLIENT<TAB>VERSION<TAB>KIND<TAB>WHAT HAPPENED
base=$1 body=0123456789
# CLIENT VERSION KIND COMMAND…: the app's own answer, with how much of the body it got.
attempt() {
  local client=$1 version=$2 kind=$3 text happened; shift 3
  text=$("$@" 2>&1) || text+=" exit $?"
  happened=$(sed -n 's/.*pod=.* method=\([A-Z]*\) .*bytes=\([0-9]*\).*/200, \1 of \2 bytes/p' <<<"$text")
  printf '%s\t%s\t%s\t%s\n' "$client" "$version" "$kind" "${happened:-$(tail -1 <<<"$text")}"
}
curl=$(curl --version | awk 'NR == 1 {print $2}')
patient=(curl -sS --max-time 100)
attempt "curl, not following" "$curl" GET "${patient[@]}" -o /dev/null -w '%{http_code}, not the app' "$base/curl" &
attempt "curl -L" "$curl" GET "${patient[@]}" -L "$base/curl" &
attempt "curl -L" "$curl" POST "${patient[@]}" -L -d "$body" "$base/curl" &
printf %s "$body" | attempt "curl -L" "$curl" stream "${patient[@]}" -L -T - -X POST "$base/curl" &
if command -v wget >/dev/null; then
  wget=$(wget --version | awk 'NR == 1 {print $3}')
  attempt "wget" "$wget" GET wget -q -T 100 -O - "$base/wget" &
  attempt "wget" "$wget" POST wget -q -T 100 -O - --post-data "$body" "$base/wget" &
fi
wait
