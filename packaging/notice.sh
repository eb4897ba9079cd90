# For both kinds of package: what an installation or an upgrade leaves to its operator. It restarts nothing by itself, as a
# restart of the core ends every game.
otproxy_notice() {
    for unit in otproxy-core otproxy-edge; do
        if [ -f "/etc/systemd/system/$unit.service" ]; then
            echo "otproxy: /etc/systemd/system/$unit.service takes the place of the package's unit. Unless you wrote it, remove it:"
            echo "    rm /etc/systemd/system/$unit.service && systemctl daemon-reload"
        fi
        if [ ! -d /run/systemd/system ] || ! systemctl --quiet is-active "$unit.service"; then continue; fi
        case $unit in
        otproxy-core) echo "otproxy: the core still runs the old program. A restart ends every game. At a server save:" ;;
        *) echo "otproxy: the edge still runs the old program. When your other edges are up:" ;;
        esac
        echo "    systemctl restart $unit"
    done
    if [ -e /usr/local/bin/otproxy ]; then
        echo "otproxy: /usr/local/bin/otproxy is found before the package's program, by the units too. Remove it:"
        echo "    rm /usr/local/bin/otproxy"
    fi
}

# Says whether the units run the package's program.
otproxy_is_ours() { [ ! -e /usr/local/bin/otproxy ]; }
