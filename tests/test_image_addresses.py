"""Images behind URLs: where the service connects, and that nothing inside its network is dialled."""

from __future__ import annotations

import socket

import pytest

from haystream_service.images import ImageFetcher
from tests.image_hosts import NAME, PNG, PRIVATE, PUBLIC, FakeInternet, Host, refusal


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "127.0.0.2",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "2130706433",
        "0.0.0.0",  # noqa: S104 - nobody listens
        "0",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[::127.0.0.1]",
    ],
)
async def test_this_machine_is_not_visited_by_any_of_its_names(anyone: Host, host: str) -> None:
    """However an address is written: it is judged as the resolver reads it."""
    async with ImageFetcher(allowed_hosts=frozenset({f"{anyone.authority}0", "127.0.0.1.example"})) as images:
        words = await refusal(images, f"http://{host}:{anyone.port}/image.png")
    assert "not on the public internet" in words
    assert not anyone.visits


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104 - nobody listens
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "192.0.0.192",
        "192.88.99.1",
        "168.63.129.16",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::a83f:8110",
        "64:ff9b::e000:1",
        "64:ff9b:1::10.0.0.1",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "2002:a9fe:a9fe::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%lo",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
async def test_an_address_inside_is_never_dialled_and_never_told(anyone: Host, address: str) -> None:
    """Loopback, private, link-local, cloud metadata, multicast, reserved; and IPv4 in each of IPv6's clothes."""
    internet = FakeInternet({NAME: [[address]]}, anyone)
    async with ImageFetcher(internet=internet) as images:
        words = await refusal(images, f"http://{NAME}/")
    assert "not on the public internet" in words
    assert address not in words
    assert (internet.lookups, internet.dialled) == ([NAME], [])


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700:4700::1111", "2a00:1450::1", "64:ff9b::808:808"])
async def test_an_address_of_the_public_internet_is_dialled(anyone: Host, address: str) -> None:
    """And one of an IPv4 host that a network with IPv6 alone reaches by NAT64. It is the address, not the name."""
    internet = FakeInternet({NAME: [[address]]}, anyone)
    async with ImageFetcher(internet=internet) as images:
        assert (await images.fetch(f"http://{NAME}/")).data == PNG
    assert internet.dialled == [address]


@pytest.mark.parametrize("addresses", [[PRIVATE, PUBLIC], [PUBLIC, PRIVATE], [PRIVATE, PUBLIC, "::1", "8.8.8.8"]])
async def test_a_private_address_among_public_ones_is_passed_over(addresses: list[str]) -> None:
    """Also when all public ones take no connection: there is no falling back to it."""
    internet = FakeInternet({NAME: [addresses]})
    async with ImageFetcher(internet=internet) as images:
        assert "no connection" in await refusal(images, f"http://{NAME}/")
    assert internet.dialled == [address for address in addresses if address in {PUBLIC, "8.8.8.8"}]


async def test_the_addresses_of_a_name_are_tried_in_their_order(anyone: Host) -> None:
    """Until one takes the connection."""
    internet = FakeInternet({NAME: [["2606:4700::1", PUBLIC, "8.8.8.8"]]}, anyone, dead=frozenset({"2606:4700::1"}))
    async with ImageFetcher(internet=internet) as images:
        assert (await images.fetch(f"http://{NAME}/")).data == PNG
    assert internet.dialled == ["2606:4700::1", PUBLIC]


async def test_a_name_that_moves_inside_after_it_was_checked_gains_nothing(anyone: Host) -> None:
    """One look-up for each fetch, whose answer is both checked and dialled; the next fetch checks anew."""
    internet = FakeInternet({NAME: [[PUBLIC], [PRIVATE], [PUBLIC]]}, anyone)
    async with ImageFetcher(internet=internet) as images:
        assert (await images.fetch(f"http://{NAME}/")).data == PNG
        assert (internet.lookups, internet.dialled) == ([NAME], [PUBLIC])
        assert "not on the public internet" in await refusal(images, f"http://{NAME}/")
        assert (await images.fetch(f"http://{NAME}/")).data == PNG
    assert internet.dialled == [PUBLIC, PUBLIC]


@pytest.mark.parametrize(
    ("allowed", "is_allowed"),
    [
        ("pictures.example", True),
        ("PICTURES.example", True),
        ("pictures.example:8080", True),
        ("pictures.example:80", False),
        ("example", False),
        (".example", False),
        ("*", False),
        ("s.example", False),
        ("[::1]", False),
    ],
)
async def test_an_operator_may_allow_a_host(anyone: Host, allowed: str, *, is_allowed: bool) -> None:
    """The very host, or this host with this port, in capitals or not: there it may be private."""
    internet = FakeInternet({NAME: [[PRIVATE]]}, anyone)
    async with ImageFetcher(internet=internet, allowed_hosts=frozenset({allowed})) as images:
        if is_allowed:
            assert (await images.fetch("http://Pictures.Example:8080/")).data == PNG
        else:
            assert "not on the public internet" in await refusal(images, f"http://{NAME}:8080/")
    assert internet.dialled == ([PRIVATE] if is_allowed else [])


@pytest.mark.parametrize("allowed", ["[::1]", "[::1]:8080"])
async def test_an_operator_may_allow_an_ipv6_address(anyone: Host, allowed: str) -> None:
    """In brackets, since "::1:8080" is an address of its own."""
    internet = FakeInternet({"::1": [["::1"], ["::1"]], "::1:8080": [["::1:8080"]]}, anyone)
    async with ImageFetcher(internet=internet, allowed_hosts=frozenset({allowed})) as images:
        assert (await images.fetch("http://[::1]:8080/")).data == PNG
        await refusal(images, "http://[::1:8080]/")
    assert internet.dialled == ["::1"]


async def test_a_name_without_an_address_is_refused() -> None:
    """Without the resolver's own words."""
    async with ImageFetcher(internet=FakeInternet({})) as images:
        words = await refusal(images, "http://nowhere.example/")
    assert "has no address" in words
    assert "10.1.2.3" not in words


async def test_a_port_without_a_server_is_refused() -> None:
    """A real one, on the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        authority = f"127.0.0.1:{closed.getsockname()[1]}"
    async with ImageFetcher(allowed_hosts=frozenset({authority})) as images:
        assert "no connection" in await refusal(images, f"http://{authority}/")


# TLS.
