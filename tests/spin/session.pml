/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The session, for the model checker SPIN (run.sh): two hosts, one guest, a link that breaks at any message,
 * heartbeats that arrive late or not at all, hosts that stand still, crash, and return with nothing. What the
 * network and an arbiter can do is one of three worlds:
 *
 *   -DARBITER  An arbiter decides; its answers come late, twice or never. Nothing is assumed about time: a
 *              host may believe at any moment that its peer is silent.
 *   -DWHOLE    No arbiter, and at least one network between the hosts is whole. A host that runs answers a
 *              query in time, so only a host that is dead or stands still is silent. One fault at a time: the
 *              next one happens once both hosts know what came of the last.
 *   -DCUT      No arbiter. Networks are cut completely, in one direction or in both, and heal.
 *
 * The model keeps of failover/: who may release, who may promote, what is asked of the peer and the arbiter,
 * what each answer means, how terms are ordered, the planned handover (-DHANDOVERS=1) and the policy hold
 * (-DHOLD). It leaves out: clocks, disks, the term's file, a standby on trial, a host that leaves, the
 * content of an epoch. The guest's state is the set of answers that it has given so far, as bits. An answer
 * is let out when a client may have seen it.
 *
 * Checked in every reachable state:
 *   - an answer that was let out is known to every guest that may let out more (I1, I2);
 *   - two hosts never let out answers on their own (I5). In CUT they may, but only after a cut, and never once
 *     each has heard the other's present term;
 *   - a host is fenced only by a newer term of the other host.
 * Checked under -DLIVE: when faults cease, exactly one host runs the guest, and stays with it.
 *
 * -DPLANT_x breaks one rule each; run.sh shows that SPIN finds it.
 */
#ifndef ANSWERS
#define ANSWERS 2 /* answers that the guest can give */
#endif
#ifndef COUNTS
#define COUNTS 3 /* the newest term's counter that anybody asks for */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef STALLS
#define STALLS 0
#endif
#ifndef FAULTS
#define FAULTS 2 /* crashes and stalls together */
#endif
#ifndef CUTS
#define CUTS 1
#endif
#ifndef BREAKS
#define BREAKS 1 /* of the link, with both ends alive */
#endif
#ifndef DELAYS
#define DELAYS 1 /* heartbeats that arrive after a newer one was sent */
#endif
#ifndef HANDOVERS
#define HANDOVERS 0
#endif
#ifndef LOST_ANSWERS
#define LOST_ANSWERS 1 /* of the arbiter, under LIVE */
#endif

/*
 * DOWN: no process. LISTEN, FOLLOW: a secondary without a whole image. ALONE: the guest runs here and its
 * output flows (connecting, synchronising). PROTECTED: also arming. UNSURE: handover-unsure.
 */
mtype = {DOWN, LISTEN, FOLLOW, STANDBY, ASKING, PROMOTING, ALONE, PROTECTED, PEER_LOST, HANDING, UNSURE};
/* What a heartbeat says of its sender. */
mtype = {RUNS_GUEST, GOES_ALONE, MAY_TAKE_OVER, HAS_LET_GO, ASKS_ARBITER, TAKES_OVER};
/* Messages of the link. */
mtype = {HELLO, EPOCH, ACK, HANDOVER};

mtype state[2] = LISTEN;
byte term[2];      /* the counter, and in the lowest bit the host that it was granted to */
byte knows[2];     /* the guest's or the image's answers, as bits */
byte requested[2]; /* the term that the arbiter is asked for, 0: none */
bool connected[2]; /* this session believes that the link is up */
bool open;         /* the connection itself: neither end has closed it, nor is it broken */
bool queries[2];   /* the peer is asked what it is, and has not been heard since */
bool loss[2];      /* that query is the one about a lost peer: only its answer counts */
bool missed[2];    /* since that query the peer stood still or was cut off: the answer may be missing */
byte peer_query[2];
byte let_go[2];       /* secondary: the term whose primary was told that it may run alone */
byte primary_term[2]; /* secondary: newest term in which a primary was heard */
bool told[2];      /* primary: the peer was told to promote */
bool overdue[2];   /* the timer of PEER_LOST or UNSURE ran out while this host stood still */
byte unacked[2];   /* primary: epochs sent and not acked */
bool stalled[2];
bool cut[2];       /* nothing arrives at this host */

byte let_out;      /* answers that a client may have seen */
byte answers;      /* given so far, by any guest */
byte crashes, stalls, cuts, breaks, delays, handovers, faults, lost_answers;
byte heard_term[2]; /* CUT: newest term in which this host heard the other one as a primary */

byte arbiter_term = 2;
byte arbiter_owner;

/* From host i to the other one: kind, term, answers. */
chan link[2] = [2] of {mtype, byte, byte};
/* Heartbeats towards host i: the newest, which comes by every path, and an older one that was delayed. */
typedef beat {
    byte term, query, answer;
    mtype says; /* 0: none */
    bool unread
};
beat newest[2], late[2];
/* Requests that are under way: the arbiter may see one long after it was sent. Answers: term, granted. */
byte request[2];
byte answer_term[2];
bool answer_granted[2];

#define OTHER   (1 - me)
#define COUNT(t) ((t) >> 1)
#ifdef PLANT_EQUAL_TERMS
#define NEXT_TERM ((COUNT(term[me]) + 1) << 1)
#else
#define NEXT_TERM (((COUNT(term[me]) + 1) << 1) | me)
#endif
#define MAY_ASK (COUNT(term[me]) < COUNTS)

#define IS_PRIMARY(h)                                                                                        \
    (state[h] == ALONE || state[h] == PROTECTED || state[h] == PEER_LOST || state[h] == HANDING ||           \
     state[h] == UNSURE)
#define RUNS(h)      (state[h] == ALONE || state[h] == PROTECTED || state[h] == PEER_LOST)
#define IS_WAITING(h) (state[h] == LISTEN || state[h] == FOLLOW || state[h] == STANDBY)
#define DECIDES(h)   (state[h] == ASKING || state[h] == PROMOTING)
#define WATCHES(h)   (state[h] == PROTECTED || state[h] == HANDING || state[h] == STANDBY || loss[h])
#define ON           (!stalled[me])
#define TOLD         (state[me] == UNSURE || (state[me] == HANDING && told[me]))

/* A query is a number that grows: those of a later term are greater, and in a term the one about a loss. */
#define QUERY_OF_LOSS (2 * COUNT(term[me]) + 1)
#define QUERY         (queries[me] -> 2 * COUNT(term[me]) + loss[me] : 0)
#define SAYS                                                                                                 \
    (IS_PRIMARY(me) -> (loss[me] -> GOES_ALONE : RUNS_GUEST)                                                 \
                     : (state[me] == STANDBY                                                                 \
                            -> MAY_TAKE_OVER                                                                 \
                            : (state[me] == ASKING -> ASKS_ARBITER                                           \
                                                   : (state[me] == PROMOTING -> TAKES_OVER : HAS_LET_GO))))

/*
 * A primary that was told that it may run alone, or was heard in a newer term, comes back in that newer term:
 * what is older is an old connection. A listening secondary may hear of the connection last.
 */
#ifdef PLANT_FOLLOW_AFTER_LET_GO
#define IS_REFUSED (t < term[me])
#else
#ifdef PLANT_FORGET_PRIMARY_TERM
#define IS_REFUSED (t < term[me] || t <= let_go[me])
#else
#define IS_REFUSED (t < term[me] || t <= let_go[me] || t < primary_term[me])
#endif
#endif
#ifdef PLANT_LET_GO_OF_OWN_TERM
#define LETS_GO (t == term[me])
#else
#define LETS_GO (t == term[me] || (state[me] == LISTEN && t > term[me]))
#endif

/* Why an answer may be missing now. */
#define UNREACHABLE (stalled[OTHER] || cut[OTHER] || cut[me])
/* No process, or a new one, whose signs of life do not count for a secondary: they are of no present term. */
#define GONE (state[OTHER] == DOWN || (!IS_PRIMARY(me) && state[OTHER] == LISTEN && term[OTHER] < term[me]))

/*
 * The peer counts as silent. With an arbiter at any time. Else: it was asked, what came has been read, and
 * the answer is missing for a reason.
 */
#ifdef ARBITER
#ifdef LIVE
#define SILENT (queries[me] && GONE)
#else
#define SILENT true
#endif
#else
#define SILENT (queries[me] && (missed[me] || (GONE && !newest[me].unread)) && READ_FIRST)
#ifdef PLANT_STALL_COUNTS
#define READ_FIRST true
#else
#define READ_FIRST (!newest[me].unread)
#endif
#endif

/*
 * A host that stood still may find a HANDOVER that is old, because its primary has gone on alone since and has
 * said so. A host that wakes reads heartbeats before the link: the replicator's main loop has them first. With
 * an arbiter the order does not matter.
 */
#if defined(ARBITER) || defined(PLANT_HANDOVER_BEFORE_BEATS)
#define BEATS_FIRST true
#else
#define BEATS_FIRST (!newest[me].unread)
#endif

/* The next fault: both hosts know what came of the last one. */
#ifdef ARBITER
#ifdef LIVE
#define MAY_FAIL (faults == 0 && (IS_PRIMARY(me) -> state[OTHER] == STANDBY : !DECIDES(me)))
#else
#define MAY_FAIL true
#endif
#else
/* It has an image of an older term, or could still get one from an old connection, and has not been told. */
#define IS_OUTDATED(h, p)                                                                                    \
    (((state[h] == STANDBY || state[h] == FOLLOW) && term[h] < term[p] && primary_term[h] < term[p]) ||      \
     (state[h] == LISTEN && !open && len(link[p]) > 0 && primary_term[h] < term[p] &&                        \
      COUNT(let_go[h]) + 1 < COUNT(term[p])))
#define MAY_FAIL                                                                                             \
    (!stalled[0] && !stalled[1] && IS_PRIMARY(0) != IS_PRIMARY(1) && !DECIDES(0) && !DECIDES(1) &&           \
     !IS_OUTDATED(0, 1) && !IS_OUTDATED(1, 0) && faults < FAULTS && SURVIVES)
#endif
/* Late acks or a cut path; and with an arbiter, a primary that is not heard. Under LIVE each is a fault. */
#ifdef LIVE
#define PEER_SEEMS_LOST (!open || faults < FAULTS)
#else
#define PEER_SEEMS_LOST true
#endif
#if defined(LIVE) && defined(ARBITER)
#define PRIMARY_SEEMS_LOST (SILENT || faults < FAULTS)
#else
#define PRIMARY_SEEMS_LOST SILENT
#endif
#ifdef LIVE
#define SURVIVES (!IS_PRIMARY(me) || (state[me] == PROTECTED && state[OTHER] == STANDBY))
#else
#define SURVIVES true
#endif

inline let_out_alone()
{
#ifdef CUT
    assert(state[OTHER] != ALONE || cuts > 0);
#else
    assert(state[OTHER] != ALONE);
#endif
    let_out = let_out | knows[me]
}

inline empty_link()
{
    do
    :: link[OTHER] ? _, _, _
    :: empty(link[OTHER]) -> break
    od
}

inline close_link()
{
    if
    :: connected[me] -> open = false
    :: else
    fi;
    connected[me] = false;
    empty_link()
}

inline stop_querying()
{
    queries[me] = false;
    loss[me] = false;
    missed[me] = false;
    overdue[me] = false
}

/* By every path at once. What is sent to a host that is cut off is lost. */
inline send_beat()
{
    if
    :: !cut[OTHER] ->
        if
        :: newest[OTHER].says != 0 && delays < DELAYS ->
            delays++;
            late[OTHER].term = newest[OTHER].term;
            late[OTHER].says = newest[OTHER].says;
            late[OTHER].query = newest[OTHER].query;
            late[OTHER].answer = newest[OTHER].answer
        :: skip
        fi;
        newest[OTHER].term = term[me];
        newest[OTHER].says = SAYS;
        newest[OTHER].query = QUERY;
        newest[OTHER].answer = peer_query[me];
        newest[OTHER].unread = true
    :: else
    fi
}

/* Heartbeats go on in every state. The model sends one when it says something new. */
#ifdef PLANT_SILENT_WHEN_ALONE
#define SENDS_REGULARLY (state[me] != ALONE)
#else
#if defined(ARBITER) && !defined(LIVE)
#define SENDS_REGULARLY false /* queries, answers and new terms are said at once */
#else
#define SENDS_REGULARLY true
#endif
#endif
#define HAS_NEWS                                                                                             \
    (newest[OTHER].says != SAYS || newest[OTHER].term != term[me] || newest[OTHER].query != QUERY ||         \
     newest[OTHER].answer != peer_query[me])

inline ask_peer(about_loss)
{
    queries[me] = true;
    loss[me] = about_loss;
    missed[me] = UNREACHABLE;
    overdue[me] = false;
    send_beat()
}

/* The process ends, and a new one without an image takes its place. */
inline forget_all()
{
    close_link();
    stop_querying();
    knows[me] = 0;
    requested[me] = 0;
    answer_term[me] = 0;
    peer_query[me] = 0;
    let_go[me] = 0;
    primary_term[me] = 0;
    told[me] = false;
    unacked[me] = 0;
    heard_term[me] = 0;
    term[me] = 0;
    newest[me].unread = false;
    newest[me].says = 0;
    late[me].says = 0;
    newest[me].term = 0; newest[me].query = 0; newest[me].answer = 0;
    state[me] = LISTEN
}

/* The same process waits for a primary; its image is not promoted any more. */
inline listen_again()
{
    close_link();
    stop_querying();
    knows[me] = 0;
    requested[me] = 0;
    state[me] = LISTEN
}

inline run_alone(new_term)
{
    term[me] = new_term;
    requested[me] = 0;
    told[me] = false;
    unacked[me] = 0;
    state[me] = ALONE;
    let_out_alone();
    send_beat()
}

/* The arbiter decides; without one, whoever asks is granted. */
inline ask_grant()
{
    stop_querying();
#ifdef ARBITER
    requested[me] = NEXT_TERM;
    request[me] = requested[me]
#else
    run_alone(NEXT_TERM)
#endif
}

inline take_over()
{
    stop_querying();
#ifdef ARBITER
    state[me] = ASKING;
#ifdef PLANT_ASK_NEWEST_TERM
    requested[me] = ((COUNT(arbiter_term) + 1) << 1) | me;
#else
    requested[me] = NEXT_TERM;
#endif
    request[me] = requested[me];
#ifdef PLANT_PROMOTE_WITHOUT_GRANT
    answer_term[me] = requested[me];
    answer_granted[me] = true;
#endif
    send_beat()
#else
    term[me] = NEXT_TERM;
    state[me] = PROMOTING;
    send_beat()
#endif
}

/* The guest gives an answer: the next bit. */
inline give_answer()
{
    knows[me] = knows[me] | (1 << answers);
    answers++
}

/* The peer lives, but is lost: it is asked to let go of its image. */
inline lose_peer()
{
    told[me] = false;
#ifdef PLANT_ALONE_WITHOUT_GRANT
    close_link();
    stop_querying();
    state[me] = ALONE;
    let_out = let_out | knows[me]
#else
    state[me] = PEER_LOST;
#ifdef HOLD
    close_link();
    stop_querying()
#else
#ifdef PLANT_ALONE_UNASKED
    close_link();
    ask_grant()
#else
    ask_peer(true)
#endif
#endif
#endif
}

inline hear_as_primary()
{
    if
#ifndef PLANT_PRIMARY_IGNORES_NEWER_TERM
    :: t > term[me] && !(TOLD && !by_primary) ->
        /* Fenced, or the handover is done. */
#ifndef PLANT_EQUAL_TERMS
        assert(term[OTHER] >= t || crashes > 0);
#endif
        forget_all();
        q = 0
#endif
    :: else ->
        if
        :: !loss[me] -> stop_querying()
#ifdef PLANT_ANY_ANSWER_COUNTS
        :: loss[me] && counts && (says == HAS_LET_GO || says == ASKS_ARBITER) ->
#else
#ifdef PLANT_ANY_STANDING_COUNTS
        :: loss[me] && counts && a >= QUERY_OF_LOSS ->
#else
        :: loss[me] && counts && a >= QUERY_OF_LOSS && (says == HAS_LET_GO || says == ASKS_ARBITER) ->
#endif
#endif
            if
            :: MAY_ASK -> close_link(); ask_grant()
            :: else
            fi
        :: loss[me] && counts && a >= QUERY_OF_LOSS && says == TAKES_OVER -> overdue[me] = false
        :: else
        fi
    fi
}

inline hear_as_secondary()
{
    if
    :: t >= term[me] -> stop_querying()
    :: else
    fi;
    if
    :: by_primary && t > primary_term[me] -> primary_term[me] = t
    :: else
    fi;
    if
#ifndef PLANT_STANDBY_IGNORES_NEWER_TERM
    :: t > term[me] && state[me] != LISTEN -> listen_again()
#endif
    :: LETS_GO && says == GOES_ALONE && counts && q != 0 ->
        let_go[me] = t;
#ifndef PLANT_KEEP_IMAGE
        if
        :: state[me] != LISTEN -> listen_again()
        :: else
        fi
#endif
    :: else
    fi
}

/* A heartbeat that a newer one has overtaken is a sign of life; its term counts, what else it says does not. */
inline hear()
{
    if
    :: newest[me].unread ->
        newest[me].unread = false;
        t = newest[me].term; says = newest[me].says; q = newest[me].query; a = newest[me].answer;
        counts = true
    :: late[me].says != 0 ->
        t = late[me].term; says = late[me].says; q = late[me].query; a = late[me].answer;
        late[me].term = 0; late[me].says = 0; late[me].query = 0; late[me].answer = 0;
        counts = newest[me].unread
    fi;
    by_primary = (says == RUNS_GUEST || says == GOES_ALONE);
    if
    :: counts && q > peer_query[me] -> peer_query[me] = q
    :: else
    fi;
#ifdef CUT
    if
    :: by_primary && t > heard_term[me] -> heard_term[me] = t
    :: else
    fi;
#endif
    if
    :: IS_PRIMARY(me) -> hear_as_primary()
    :: IS_WAITING(me) -> hear_as_secondary()
    :: else
    fi;
#ifdef CUT
    /* Each has heard the other's present term: one of them is fenced by now. */
    assert(!(state[0] == ALONE && state[1] == ALONE && heard_term[0] == term[1] && heard_term[1] == term[0]));
#endif
    if
    :: counts && q != 0 -> send_beat()
    :: else
    fi;
    t = 0; says = 0; q = 0; a = 0; counts = false; by_primary = false
}

active [2] proctype host()
{
    byte me = _pid, t, bits, q, a;
    mtype says;
    bool counts, by_primary;

    atomic {
        if
        :: me == 0 -> state[0] = ALONE; term[0] = 2
        :: else -> term[1] = 2
        fi
    }
end:
    do
    /* ---- heartbeats ---- */
    :: atomic { ON && state[me] != DOWN && (newest[me].unread || late[me].says != 0) -> hear() }
    :: atomic { SENDS_REGULARLY && ON && state[me] != DOWN && state[OTHER] != DOWN && !cut[OTHER] &&
        !newest[OTHER].unread && HAS_NEWS -> send_beat() }
#ifndef ARBITER
    /* A heartbeat was missed. */
    :: atomic { ON && !queries[me] && WATCHES(me) && (GONE || UNREACHABLE) -> ask_peer(false) }
#else
#ifdef LIVE
    :: atomic { ON && !queries[me] && WATCHES(me) && GONE -> ask_peer(false) }
#endif
#endif

    /* ---- the guest runs here alone ---- */
    :: atomic { ON && state[me] == ALONE && answers < ANSWERS ->
        give_answer();
        let_out_alone()
    }
    /* The transports shake hands. The peer's session has not heard of it yet. */
    :: atomic { ON && (state[me] == ALONE
#ifdef HOLD
        || (state[me] == PEER_LOST && requested[me] == 0 && MAY_ASK)
#endif
        ) && !open && !connected[me] && !connected[OTHER] && !cut[me] && !cut[OTHER] && !stalled[OTHER] &&
        (state[OTHER] == LISTEN || state[OTHER] == STANDBY) && empty(link[me]) ->
        if
        :: term[OTHER] > term[me] -> forget_all()
        :: else ->
            open = true;
            link[me] ! HELLO, term[me], 0;
            if
            :: state[me] == ALONE -> connected[me] = true
            :: else ->
                /* Policy hold, and a peer is back: it may have run the guest and forgotten it. */
                open = false;
#ifdef PLANT_RETURN_WITHOUT_GRANT
                state[me] = ALONE;
                let_out_alone()
#else
                ask_grant()
#endif
            fi
        fi
    }
    /* Synchronised: from here on output is held, then the first epoch is cut. */
    :: atomic { ON && state[me] == ALONE && connected[me] && nfull(link[me]) ->
        state[me] = PROTECTED;
        unacked[me] = 1;
        link[me] ! EPOCH, term[me], knows[me]
    }
    :: atomic { ON && (state[me] == ALONE || state[me] == PEER_LOST || state[me] == UNSURE) && connected[me] &&
        !open -> close_link() }

    /* ---- protected ---- */
    :: atomic { ON && state[me] == PROTECTED && answers < ANSWERS && nfull(link[me]) ->
        give_answer();
        unacked[me]++;
        link[me] ! EPOCH, term[me], knows[me];
#ifdef PLANT_RELEASE_BEFORE_ACK
        let_out = let_out | knows[me]
#endif
    }
    :: atomic { ON && (state[me] == PROTECTED || state[me] == HANDING) && connected[me] &&
        link[OTHER] ? [ACK, t, bits] ->
        link[OTHER] ? ACK, t, bits;
        if
        :: t == term[me] ->
            let_out = let_out | bits;
            unacked[me]--;
            assert(state[OTHER] != ALONE || (let_out & ~knows[OTHER]) == 0)
        :: else
        fi;
        t = 0; bits = 0
    }
    /* Link down, acks that are late, a cut path: the peer is lost, or only seems so. */
    :: atomic { ON && (state[me] == PROTECTED || (state[me] == HANDING && !told[me])) && MAY_ASK &&
        PEER_SEEMS_LOST ->
#ifdef LIVE
        if
        :: open -> faults++
        :: else
        fi;
#endif
        if
        :: !open -> close_link()
        :: else
        fi;
        lose_peer()
    }
    /* The peer is silent: the arbiter is asked at once. */
    :: atomic { ON && (state[me] == PROTECTED || (state[me] == HANDING && !told[me])) && SILENT && MAY_ASK ->
#ifdef HOLD
        lose_peer()
#else
        close_link();
        told[me] = false;
        state[me] = PEER_LOST;
        ask_grant()
#endif
    }
    :: atomic { ON && loss[me] && SILENT && MAY_ASK -> close_link(); ask_grant() }
#ifndef ARBITER
    /*
     * The timer of a loss. A peer that is heard and never answers hears nothing itself: by now it has taken
     * over, or has nothing to take over with. While this host stood still, the timer may have run out as well.
     */
    :: atomic { ON && loss[me] && MAY_ASK && !newest[me].unread &&
        ((cut[OTHER] && !cut[me] && state[OTHER] != STANDBY) || overdue[me]) ->
        close_link();
        ask_grant()
    }
#endif
    :: atomic { ON && (state[me] == PEER_LOST || state[me] == UNSURE) && answer_term[me] == requested[me] &&
        requested[me] != 0 ->
        answer_term[me] = 0;
        if
        :: answer_granted[me] -> run_alone(requested[me])
        :: else -> forget_all() /* fenced: what was held is thrown away */
        fi
    }

    /* ---- a planned handover: the guest is paused after the last epoch ---- */
    :: atomic { ON && state[me] == PROTECTED && handovers < HANDOVERS && nfull(link[me]) && connected[me] ->
        handovers++;
        state[me] = HANDING;
        told[me] = false;
        unacked[me]++;
        link[me] ! EPOCH, term[me], knows[me]
    }
    :: atomic { ON && state[me] == HANDING && !told[me] && unacked[me] == 0 && connected[me] &&
        nfull(link[me]) ->
        told[me] = true;
        link[me] ! HANDOVER, term[me], 0
    }
    /* It took too long, or the link is gone: the peer may run the guest. */
    :: atomic { ON && state[me] == HANDING && told[me] && MAY_ASK ->
        if
        :: !open -> close_link()
        :: else
        fi;
#ifdef PLANT_TAKE_BACK_TOLD
        close_link();
        state[me] = PEER_LOST;
        ask_grant()
#else
        state[me] = UNSURE;
        ask_peer(true)
#endif
    }

    /* ---- secondary ---- */
    :: atomic { ON && (state[me] == LISTEN || state[me] == STANDBY) && !connected[me] &&
        link[OTHER] ? [HELLO, t, bits] ->
        link[OTHER] ? HELLO, t, bits;
        if
        :: IS_REFUSED -> connected[me] = true; close_link()
        :: else ->
            stop_querying();
            connected[me] = true;
            term[me] = t;
            knows[me] = 0;
            state[me] = FOLLOW
        fi;
        t = 0
    }
    :: atomic { ON && (state[me] == FOLLOW || state[me] == STANDBY
#ifdef PLANT_ACK_WHILE_ASKING
        || state[me] == ASKING
#endif
        ) && connected[me] && nfull(link[me]) && link[OTHER] ? [EPOCH, t, bits] ->
        link[OTHER] ? EPOCH, t, bits;
        if
        :: t == term[me] ->
            if
            :: state[me] != ASKING -> knows[me] = bits; state[me] = STANDBY
            :: else
            fi;
            if
            :: open -> link[me] ! ACK, t, bits
            :: else
            fi
        :: else
        fi;
        t = 0; bits = 0
    }
    :: atomic { ON && state[me] == STANDBY && connected[me] && BEATS_FIRST &&
        link[OTHER] ? [HANDOVER, t, bits] && MAY_ASK ->
        link[OTHER] ? HANDOVER, t, bits;
        t = 0;
        take_over()
    }
    :: atomic { ON && connected[me] && !open && state[me] == FOLLOW -> listen_again() }
    :: atomic { ON && connected[me] && !open && state[me] == STANDBY ->
        close_link();
#ifdef PLANT_TAKE_OVER_UNASKED
        if
        :: MAY_ASK -> take_over()
        :: else
        fi
#endif
    }
    /* A connection that has ended before this session heard of it. */
    :: atomic { ON && !connected[me] && !open && nempty(link[OTHER]) && !IS_PRIMARY(me) -> empty_link() }
    /* The primary is silent, or only seems so: from here on nothing is acked. */
    :: atomic { ON && state[me] == STANDBY && MAY_ASK && PRIMARY_SEEMS_LOST ->
#if defined(LIVE) && defined(ARBITER)
        if
        :: SILENT
        :: else -> faults++
        fi;
#endif
#ifndef PLANT_ACK_WHILE_ASKING
        close_link();
#endif
        take_over()
    }
    :: atomic { ON && state[me] == ASKING && answer_term[me] == requested[me] && requested[me] != 0 ->
        answer_term[me] = 0;
        if
        :: answer_granted[me] ->
            term[me] = requested[me];
            requested[me] = 0;
            state[me] = PROMOTING;
            send_beat()
        :: else -> listen_again()
        fi
    }
    :: atomic { ON && state[me] == PROMOTING ->
#ifndef CUT
        /* The guest goes on here: it must know all that a client has seen. */
        assert((let_out & ~knows[me]) == 0);
        assert(state[OTHER] != ALONE);
#endif
        state[me] = ALONE;
        close_link();
        let_out_alone();
        send_beat()
    }
#ifdef ARBITER
#ifndef PLANT_NEVER_ASK_AGAIN
    /* An answer that is lost: ask again, for the same term. */
    :: atomic { ON && requested[me] != 0 && request[me] == 0 && answer_term[me] == 0 ->
        request[me] = requested[me] }
#endif
#endif

    /* ---- faults ---- */
    :: atomic { state[me] != DOWN && ON && crashes < CRASHES && MAY_FAIL ->
        crashes++;
        faults++;
        if
        :: connected[me] || connected[OTHER] -> open = false
        :: else
        fi;
        forget_all();
        state[me] = DOWN
    }
    :: atomic { state[me] == DOWN -> state[me] = LISTEN }
#if STALLS > 0
    :: atomic { state[me] != DOWN && ON && stalls < STALLS && MAY_FAIL ->
        stalls++;
        faults++;
        stalled[me] = true;
        if
        :: queries[OTHER] -> missed[OTHER] = true
        :: else
        fi
    }
    /*
     * What came meanwhile is read first: at least one heartbeat, which may be an old one. Then this host asks,
     * and judges the peer by the answer. The timer of its state may have run out.
     */
    :: atomic { stalled[me] ->
        stalled[me] = false;
        if
        :: newest[me].says != 0 && state[OTHER] != DOWN -> newest[me].unread = true
        :: else
        fi;
        if
        :: WATCHES(me) ->
#ifdef PLANT_STALL_COUNTS
            queries[me] = true;
            missed[me] = true
#else
            if
            :: loss[me] -> ask_peer(true); overdue[me] = true
            :: else -> ask_peer(false)
            fi
#endif
        :: else
        fi
    }
#endif
    od
}

/* The network: the link breaks, and in CUT nothing arrives at one host or at both, for a while. */
active proctype network()
{
end:
    do
    :: atomic { open && breaks < BREAKS -> breaks++; open = false }
#ifdef CUT
    :: atomic { cuts < CUTS && !cut[0] && !cut[1] ->
        cuts++;
        if
        :: cut[0] = true
        :: cut[1] = true
        :: cut[0] = true; cut[1] = true
        fi;
        open = false;
        missed[0] = queries[0];
        missed[1] = queries[1]
    }
    :: atomic { cut[0] || cut[1] -> cut[0] = false; cut[1] = false }
#endif
    od
}

#ifdef ARBITER
/* Compare-and-swap of the term, the same for the same owner. It answers late, and its answers may be lost. */
active proctype arbiter()
{
    byte h;
end:
    do
    :: atomic { request[0] != 0 || request[1] != 0 ->
        if
        :: request[0] != 0 -> h = 0
        :: request[1] != 0 -> h = 1
        fi;
        if
        :: request[h] == arbiter_term && arbiter_owner == h -> answer_granted[h] = true
#ifdef PLANT_GRANT_TWICE
        :: COUNT(request[h]) == COUNT(arbiter_term) && arbiter_owner != h -> answer_granted[h] = true
#endif
        :: COUNT(request[h]) == COUNT(arbiter_term) + 1 ->
            arbiter_term = request[h];
            arbiter_owner = h;
            answer_granted[h] = true
        :: else -> answer_granted[h] = false
        fi;
        answer_term[h] = request[h];
        if
#ifdef LIVE
        :: lost_answers < LOST_ANSWERS -> lost_answers++; answer_term[h] = 0
#else
        :: answer_term[h] = 0 /* lost */
#endif
        :: skip
        fi;
        if
        :: request[h] = 0
#ifndef LIVE
        :: skip /* the request comes twice */
#endif
        fi;
        h = 0
    }
    od
}
#endif

#ifdef LIVE
/* Time goes on even where nothing else happens: otherwise the search takes a standstill for a fair run. */
bool tick;
active proctype clock()
{
    do
    :: tick = !tick
    od
}

#define HAS_GUEST(h) (state[h] == ALONE || state[h] == PROTECTED)
ltl one_runs { <>[] (HAS_GUEST(0) != HAS_GUEST(1)) }
#endif
