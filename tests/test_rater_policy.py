"rater, asked by Postfix: the policy protocol over both kinds of sockets, by a real process and a real Postfix."

from __future__ import annotations

import re
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mailserver import PATIENCE, until
from postfix_server import Postfix, a_folder, codes
from rater_server import Process
from servers import free_port

from ra_plugins.rater.config import described, parse_config
from ra_plugins.rater.memory import Memory, StoreError
from ra_plugins.rater.postfix import Ledger, PolicyDesk
from ra_plugins.rater.protocol import Rater
from ra_plugins.rater.syntax import ConfigError
from ra_plugins.support.policy import (
    POLICY_ACTION_BYTES,
    POLICY_ATTRIBUTES,
    POLICY_BYTES,
    PolicyError,
    PolicyRequests,
    policy_answer,
)

LIMITS = '[[limits.user]]\nlimit = "2 in 1h"\n[[limits.ip]]\nlimit = "3 in 1h"\nprefix6 = 64\n'
BY_USER = '[[policy.rules]]\nclass = "user"\nvalue = "{sasl_username}"\n'
BY_IP = '[[policy.rules]]\nclass = "ip"\nvalue = "{client_address}"\n'


def problems(policy: str, limits: str = LIMITS) -> list[str]:
    "What is wrong in a configuration, as people are told it."
    with pytest.raises(ConfigError) as caught:
        parse_config("rater.toml", (policy + limits).encode())
    return str(caught.value).splitlines()


def a_desk(rules: str, settings: str = "", limits: str = LIMITS, store: Memory | None = None) -> PolicyDesk:
    "What answers Postfix, without a server."
    config = parse_config("rater.toml", f'[policy]\nlisten = "/run/x"\n{settings}\n{rules}{limits}'.encode())
    assert config.policy is not None
    return PolicyDesk(Rater(config.book, store or Memory(clock=lambda: 0.0)), config.policy)


def a_request(**attributes: str) -> dict[str, str]:
    "A request about a recipient."
    usual = {"protocol_state": "RCPT", "instance": "1.a", "client_address": "192.0.2.7", "sasl_username": "ana"}
    return {"request": "smtpd_access_policy", **usual, "recipient": "ben@example.net", **attributes}


def as_sent(request: dict[str, str]) -> bytes:
    return "".join(f"{name}={value}\n" for name, value in request.items()).encode() + b"\n"


def actions_of(desk: PolicyDesk, *requests: dict[str, str]) -> list[str]:
    "The actions, one request after the other."
    return [desk.answers([each])[0].decode().removeprefix("action=").removesuffix("\n\n") for each in requests]


# The protocol


def heard(parts: list[bytes]) -> tuple[list[dict[str, str]], bool]:
    "The requests in some bytes, and whether something else was among them."
    requests, found = PolicyRequests(), []
    try:
        for part in [*parts, b""]:
            found += requests.feed(part)
    except PolicyError:
        return found, True
    return found, False


pieces = st.sampled_from(
    [b"a=1\n", b"b=\n", b"\n", b"sender=\xff@x\n", b"nonsense\n", b"=\n", b"c=\0\n", b"c", b"=", b"d=e=f\r\n"]
)


@given(st.lists(pieces, max_size=12).map(b"".join), st.lists(st.integers(0, 60), max_size=8))
def test_requests_are_the_same_however_their_bytes_are_cut(data: bytes, cuts: list[int]) -> None:
    ends = [0, *sorted(min(each, len(data)) for each in cuts), len(data)]
    assert heard([data[begin:end] for begin, end in zip(ends, ends[1:], strict=False)]) == heard([data])
    assert heard([bytes([each]) for each in data]) == heard([data])


def test_what_postfix_cannot_have_sent_is_an_error() -> None:
    for data in (b"\n", b"a\n", b"=a\n", b"a=1\na=2\n", b"a=\0\n", b"GET / HTTP/1.1\r\n", b"x" * (POLICY_BYTES + 1)):
        with pytest.raises(PolicyError):
            PolicyRequests().feed(data)
    many = b"".join(b"a%d=\n" % number for number in range(POLICY_ATTRIBUTES + 1))
    with pytest.raises(PolicyError, match="100 attributes"):
        PolicyRequests().feed(many)


@given(st.text())
def test_an_answer_is_one_line_whatever_the_action_is(action: str) -> None:
    answer = policy_answer(action)
    assert answer.startswith(b"action=") and answer.endswith(b"\n\n") and answer.count(b"\n") == 2
    assert len(answer) <= POLICY_ACTION_BYTES + 9 and len(answer.decode().splitlines()) == 2


# What is counted, and what Postfix is told


def test_over_a_limit_mail_is_deferred_and_within_postfix_goes_on() -> None:
    desk = a_desk(BY_USER)
    *within, over = actions_of(desk, *(a_request(recipient=f"{name}@example.net") for name in ("ben", "eva", "tom")))
    assert within == ["DUNNO", "DUNNO"] and over.startswith("DEFER_IF_PERMIT 4.7.1 ")


def test_a_rule_is_not_asked_if_an_attribute_is_empty() -> None:
    desk = a_desk('[[policy.rules]]\nclass = "user"\nvalue = "{sasl_username}/{recipient_domain}"\n')
    for request in (a_request(sasl_username=""), a_request(recipient=""), {}):
        assert actions_of(desk, request) == ["DUNNO"]
    assert not desk.rater.answered


def test_a_rule_is_not_asked_if_there_is_what_its_unless_names() -> None:
    desk = a_desk(BY_IP + 'unless = "{sasl_username}"\n')
    actions_of(desk, a_request(), a_request(sasl_username=""))
    assert desk.rater.answered == {("ip", "0"): 1}


def test_a_recipient_counts_once_in_a_message_whatever_asks_about_it() -> None:
    both = BY_USER + 'state = ["RCPT", "DATA", "END-OF-MESSAGE"]\nweight = "{recipient_count}"\n'
    desk = a_desk(both, limits='[[limits.user]]\nlimit = "3 in 1h"\n')
    one, two = a_request(), a_request(recipient="eva@example.net")
    whole = a_request(protocol_state="DATA", recipient="", recipient_count="2")
    end = {**whole, "protocol_state": "END-OF-MESSAGE"}
    assert actions_of(desk, one, one, two, one, whole, end) == ["DUNNO"] * 6
    assert desk.rater.answered == {("user", "0"): 2}
    third, fourth = actions_of(desk, a_request(instance="1.b"), a_request(instance="1.c"))
    assert third == "DUNNO" and fourth.startswith("DEFER")


def test_what_is_asked_again_is_answered_as_before() -> None:
    desk = a_desk(BY_USER + 'over = "450 4.7.1 {count} of {limit}"\n')
    names = ("ben", "eva", "tom", "tom", "ben")
    actions = actions_of(desk, *(a_request(recipient=f"{name}@example.net") for name in names))
    assert actions == ["DUNNO", "DUNNO", "450 4.7.1 3 of 2", "450 4.7.1 3 of 2", "DUNNO"]


def test_a_message_can_be_counted_by_its_recipients_at_once() -> None:
    desk = a_desk(BY_USER + 'state = "DATA"\nweight = "{recipient_count}"\nover = "REJECT 5.7.1 {count} are too many"\n')
    whole = a_request(protocol_state="DATA", recipient="")
    first, second = {**whole, "recipient_count": "2"}, {**whole, "recipient_count": "5", "instance": "1.b"}
    assert actions_of(desk, a_request(), first, second) == ["DUNNO", "DUNNO", "REJECT 5.7.1 7 are too many"]


def test_without_an_instance_every_request_counts() -> None:
    desk = a_desk(BY_USER)
    assert actions_of(desk, *[a_request(instance="")] * 3)[2].startswith("DEFER")


def test_all_rules_count_and_the_first_that_refuses_answers() -> None:
    warns = BY_IP + 'over = "WARN busy"\n'
    desk = a_desk(warns + BY_USER + 'over = "450 4.7.1 user"\n' + BY_IP + 'over = "REJECT 5.7.1 ip"\n')
    actions = actions_of(desk, *(a_request(recipient=f"{number}@example.net") for number in range(4)))
    assert actions == ["DUNNO", "REJECT 5.7.1 ip", "450 4.7.1 user", "450 4.7.1 user"]
    assert desk.rater.answered == {("ip", "0"): 3, ("ip", "1"): 5, ("user", "0"): 2, ("user", "1"): 2}


def test_texts_tell_the_verdict_and_hold_what_a_client_says_to_one_line() -> None:
    desk = a_desk(
        BY_USER.replace("sasl_username", "sender") + 'over = "450 4.7.1 {sender}: {count}/{limit} in {window}, {wait} s"\n'
    )
    requests = [a_request(sender="Ana@x\naction=OK", recipient=f"{number}@example.net") for number in range(3)]
    assert actions_of(desk, *requests)[2] == "450 4.7.1 Ana@x action=OK: 3/2 in 1h, 3600 s"


def test_addresses_are_counted_in_one_spelling_and_users_as_their_class_says() -> None:
    desk = a_desk(BY_USER + BY_IP, limits=LIMITS + '[classes.user]\nfold = true\ntag = "+"\n')
    for number, (user, client) in enumerate((("ana", "2001:db8::1"), ("Ana+news", "2001:DB8:0::2"), ("ANA", "2001:db8::3"))):
        actions = actions_of(desk, a_request(sasl_username=user, client_address=client, instance=str(number)))
    assert actions[0].startswith("DEFER") and desk.rater.store.held() == 2


def test_domains_are_in_lower_case() -> None:
    desk = a_desk('[[policy.rules]]\nclass = "user"\nvalue = "{sender_domain}"\nover = "REJECT {value}"\n')
    actions = actions_of(desk, *(a_request(sender=f"{n}@Example.ORG", instance=str(n)) for n in range(3)))
    assert actions == ["DUNNO", "DUNNO", "REJECT example.org"]


class Away(Memory):
    "A store that can't be reached."

    def count(self, marks: object) -> list[tuple[int, ...] | StoreError]:
        raise StoreError("away")


def test_without_a_verdict_postfix_goes_on_unless_the_section_says_else() -> None:
    assert actions_of(a_desk(BY_USER, store=Away()), a_request()) == ["DUNNO"]
    careful = a_desk(BY_USER, settings='no_verdict = "DEFER 4.3.0 later"', store=Away())
    assert actions_of(careful, a_request(), a_request()) == ["DEFER 4.3.0 later"] * 2
    assert not careful.ledger.answers  # it is asked anew


def test_a_class_by_template_that_is_none_is_no_verdict() -> None:
    desk = a_desk('[[policy.rules]]\nclass = "{policy_context}"\nvalue = "{client_address}"\n')
    assert actions_of(desk, a_request(policy_context="submission"), *[a_request(policy_context="ip")] * 2) == ["DUNNO"] * 3
    assert desk.rater.answered == {("", "2"): 1, ("ip", "0"): 1}


def test_what_is_remembered_is_bounded() -> None:
    desk = a_desk(BY_USER)
    desk.ledger = Ledger(most=100)
    for number in range(1000):
        desk.answers([a_request(instance=str(number), recipient=f"{number}@example.net")])
    assert len(desk.ledger.answers) == len(desk.ledger.marks) == 100


@given(st.lists(st.dictionaries(st.sampled_from(list(a_request())), st.text(max_size=8)), max_size=5))
def test_whatever_is_asked_has_an_answer_of_one_line(requests: list[dict[str, str]]) -> None:
    desk = a_desk(BY_USER + BY_IP, settings='over = "450 4.7.1 {recipient} {client_address} {wait}"')
    assert all(answer.count(b"\n") == 2 for answer in desk.answers(requests))


# The configuration


def test_mistakes_in_templates_are_told_with_their_lines() -> None:
    told = problems(
        '[policy]\nlisten = "localhost:10041"\nover = "OK"\n'
        '[[policy.rules]]\nclass = "users"\nvalue = "{sasl_usernam}"\nstate = "RCTP"\n'
        '[[policy.rules]]\nclass = "user"\nvalue = "{sender"\nover = "REJECT 4.7.1 {waits}"\n'
    )
    assert [line.partition(": ")[0] for line in told] == [f"rater.toml:{number}" for number in (2, 3, 6, 7, 10, 11)]
    assert told[2].endswith("{sasl_usernam} is unknown; should it be {sasl_username}?")
    wrong_text = '[policy]\nlisten = "/run/x"\n' + BY_USER + 'over = "450 {waits}"\n'
    assert problems(wrong_text) == ["rater.toml:6: {waits} is unknown; should it be {wait}?"]


def test_a_class_without_limits_is_a_mistake() -> None:
    assert problems('[policy]\nlisten = "/run/x"\n' + BY_USER, '[[limits.ip]]\nlimit = "1 in 1h"\n') == [
        'rater.toml:4: there are no limits for a class "user"'
    ]


def test_nothing_that_would_relay_can_be_said() -> None:
    for action in ("OK", "permit", "RELAY", "permit_mynetworks", "FILTER smtp:x", "250 ok"):
        for name in ("within", "over", "no_verdict"):
            (told,) = problems(f'[policy]\nlisten = "/run/x"\n{name} = "{action}"\n{BY_USER}')
            assert told.startswith("rater.toml:3: "), action


def test_what_cannot_be_meant_is_noted_with_its_line() -> None:
    rules = BY_USER + 'state = "MAIL"\n' + BY_USER.replace("sasl_username", "recipient") + 'state = "DATA"\n'
    notes = parse_config("rater.toml", ('[policy]\nlisten = "/run/x"\n' + rules + LIMITS).encode()).notes
    assert [str(each).partition(" only ")[0] for each in notes] == [
        "rater.toml:6: Postfix asks in this state",
        "rater.toml:9: outside of RCPT Postfix tells a recipient",
    ]


def test_messages_are_counted_at_data() -> None:
    desk = a_desk(BY_USER + 'state = "DATA"\n')
    whole = a_request(protocol_state="DATA", recipient="", recipient_count="50")
    actions = actions_of(desk, a_request(), *({**whole, "instance": str(number)} for number in range(3)))
    assert actions[:3] == ["DUNNO"] * 3 and actions[3].startswith("DEFER")


def test_check_says_what_postfix_is_told() -> None:
    rater = parse_config("rater.toml", ('[policy]\nlisten = "inet:127.0.0.1:10041"\n' + BY_USER + LIMITS).encode())
    lines = described(rater).splitlines()
    assert "Postfix: 127.0.0.1 port 10041, at most 1,000 connections" in lines
    assert any(line.startswith("  RCPT: user {sasl_username} is counted; over its limit: DEFER_IF_PERMIT") for line in lines)


def test_the_packaged_example_can_be_used() -> None:
    packaged = (Path(__file__).parent.parent / "packaging/rater.toml").read_text()
    policy = parse_config("rater.toml", re.sub(r"^#(?! )", "", packaged, flags=re.MULTILINE).encode()).policy
    assert policy is not None and [rule.name.text for rule in policy.rules] == ["user", "ip"]


def test_the_libconfig_syntax_says_the_same() -> None:
    content = b"""
    limits: { user: ( ("*", 3600, 2) ); };
    policy: { listen: "127.0.0.1:10041"; rules: ( { class: "user"; value: "{sasl_username}"; } ); };
    """
    policy = parse_config("rater.conf", content).policy
    assert policy is not None and policy.rules[0].value.text == "{sasl_username}"


# A process


@contextmanager
def listening(folder: Path, rules: str = BY_USER, **settings: int) -> Iterator[tuple[Process, list[int | str]]]:
    "A rater that Postfix can ask, and where: at a port and at a path."
    more = "".join(f"{name} = {value}\n" for name, value in settings.items())
    places: list[int | str] = [free_port(), str(folder / "policy")]
    policy = f'[policy]\nlisten = ["127.0.0.1:{places[0]}", "{places[1]}"]\n{more}{rules}'
    with Process(folder, policy + LIMITS, log_level=3) as rater:
        until(lambda: "marks: " in rater.log.read_text(), "it listens everywhere")
        yield rater, places


def connected(where: int | str) -> socket.socket:
    if isinstance(where, int):
        return socket.create_connection(("127.0.0.1", where), PATIENCE)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(where)
    return client


def answer(client: socket.socket) -> bytes:
    "What is said, up to an empty line, or to the end."
    said = b""
    while not said.endswith(b"\n\n") and (chunk := client.recv(4096)):
        said += chunk
    return said


def test_many_requests_on_a_connection_of_either_kind(tmp_path: Path) -> None:
    with listening(tmp_path) as (rater, places):
        for where in places:
            with connected(where) as client:
                answers = []
                for number in range(3):
                    sent = as_sent(a_request(instance=str(number), sasl_username=f"ana{where}"))
                    client.sendall(sent[:50])
                    client.sendall(sent[50:])
                    answers.append(answer(client))
            assert answers[:2] == [b"action=DUNNO\n\n"] * 2 and answers[2].startswith(b"action=DEFER_IF_PERMIT 4.7.1 "), where
        assert rater.ask(f"-peek user ana{places[0]}\n".encode()) == b"1 3/2\r\n"
    assert not Path(str(places[1])).exists()


def test_others_than_postfix_get_no_answer_and_harm_nobody(tmp_path: Path) -> None:
    with listening(tmp_path) as (rater, places), connected(places[0]) as postfix:
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\n\n", b"a=1\na=1\n\n", b"x" * 100_000, b"a=\0\n\n"):
            with connected(places[0]) as client, suppress(ConnectionError):
                client.sendall(data)
                assert answer(client) == b"", data
        with connected(places[0]) as client:
            client.sendall(as_sent(a_request()) + b"EHLO x\r\n")
            assert answer(client) == b"action=DUNNO\n\n" and answer(client) == b""
        postfix.sendall(as_sent(a_request(instance="2")))
        assert answer(postfix) == b"action=DUNNO\n\n"
        assert rater.log.read_text().count("hung up on a client that isn't Postfix") == 1


def test_connections_are_bounded_apart_from_those_with_questions(tmp_path: Path) -> None:
    with listening(tmp_path, connections=5) as (rater, places):
        clients = []
        for number in range(6):
            clients.append(connected(places[1]))
            clients[-1].sendall(as_sent(a_request(sasl_username=str(number))))
            assert answer(clients[-1]) == b"action=DUNNO\n\n"
        assert clients[0].recv(1) == b""  # the one that has waited for longest
        clients[5].sendall(as_sent(a_request(sasl_username="5", instance="2")))
        assert answer(clients[5]) == b"action=DUNNO\n\n" and rater.ask(b"user eva\n") == b"0 1/2\r\n"
        for client in clients:
            client.close()


def test_one_that_has_nothing_more_to_ask_is_let_go(tmp_path: Path) -> None:
    with listening(tmp_path, timeout=1) as (_, places):
        for sent in (b"", b"request=", as_sent(a_request())):
            with connected(places[1]) as client:
                client.sendall(sent)
                assert answer(client) in (b"", b"action=DUNNO\n\n") and client.recv(1) == b""


def test_rules_are_read_again_and_what_is_counted_stays(tmp_path: Path) -> None:
    with listening(tmp_path) as (rater, places), connected(places[0]) as client:
        for number in range(2):
            client.sendall(as_sent(a_request(instance=str(number))))
            assert answer(client) == b"action=DUNNO\n\n"
        rater.config.write_text(rater.config.read_text().replace(BY_USER, BY_USER + 'over = "REJECT 5.7.1 enough"\n'))
        rater.process.send_signal(signal.SIGHUP)
        until(lambda: "read again" in rater.log.read_text(), "the configuration is read")
        client.sendall(as_sent(a_request(instance="3")))
        assert answer(client) == b"action=REJECT 5.7.1 enough\n\n"
        rater.config.write_text(rater.config.read_text().replace('/policy"', '/elsewhere"'))
        rater.process.send_signal(signal.SIGHUP)
        until(lambda: "policy: listen changed, which holds from the next start on" in rater.log.read_text(), "it is said")


def test_figures_tell_what_postfix_was_told(tmp_path: Path) -> None:
    from urllib.request import urlopen

    pytest.importorskip("prometheus_client")
    port = free_port()
    policy = f'[policy]\nlisten = "{tmp_path}/policy"\n{BY_USER}'
    with Process(tmp_path, policy + LIMITS, metrics_port=port, log_level=3) as rater:
        until(lambda: "marks: " in rater.log.read_text(), "it listens everywhere")
        client = connected(f"{tmp_path}/policy")
        for number in range(3):
            client.sendall(as_sent(a_request(instance=str(number))))
            answer(client)
        with connected(f"{tmp_path}/policy") as other:
            other.sendall(b"HELO\n")
            assert answer(other) == b""
        client.close()
        page = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE).read().decode()
    for line in (
        'rater_policy_answers_total{action="DUNNO"} 2.0',
        'rater_policy_answers_total{action="DEFER_IF_PERMIT"} 1.0',
        "rater_policy_malformed_total 1.0",
        'rater_questions_total{answer="1",class="user"} 1.0',
    ):
        assert line in page.splitlines()


# A real Postfix

@pytest.fixture
def home() -> Iterator[Path]:
    folder = a_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def asking(folder: Path, first: str, second: str) -> Postfix:
    "A Postfix that asks at two places."
    settings = {
        "smtpd_client_restrictions": f"check_policy_service {first}",
        "smtpd_relay_restrictions": f"check_policy_service {second}, permit_auth_destination, reject",
        "smtpd_recipient_restrictions": f"check_policy_service {first}, permit_auth_destination, reject",
        "smtpd_data_restrictions": f"check_policy_service {second}",
        "smtpd_end_of_data_restrictions": f"check_policy_service {first}",
    }
    return Postfix(folder, settings)


def send(server: Postfix, login: str, *recipients: str) -> list[int]:
    "Send a message as somebody who has logged in: the codes at RCPT, and that of the message."
    return codes(server.send(*recipients, sender="ana@example.org", LOGIN=login))


def test_the_third_message_of_a_user_is_deferred_by_a_real_postfix(home: Path) -> None:
    states = 'state = ["RCPT", "DATA", "END-OF-MESSAGE"]\nweight = "{recipient_count}"\n'
    rules = BY_USER + states + 'over = "450 4.7.1 {value}: {count} of {limit} in {window}"\n'
    with (
        listening(home, rules) as (rater, places),
        asking(home, f"inet:127.0.0.1:{places[0]}", f"unix:{places[1]}") as server,
    ):
        assert [send(server, "ana", "ben@example.net") for _ in range(3)] == [[250, 250], [250, 250], [450]]
        assert send(server, "eva", "ben@example.net", "tom@example.net") == [250, 250, 250]
        assert send(server, "eva", "ben@example.net") == [450]
        assert rater.ask(b"-peek user ana\n") == b"1 3/2\r\n" and rater.ask(b"-peek user eva\n") == b"1 3/2\r\n"


def test_mail_is_kept_and_deferred_while_rater_is_away(home: Path) -> None:
    with asking(home, f"inet:127.0.0.1:{free_port()}", f"inet:127.0.0.1:{free_port()}") as server:
        assert send(server, "ana", "ben@example.net") == [451]
