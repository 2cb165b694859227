/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The session with the arbiter's rule, for the model checker SPIN (run.sh). Two hosts, one guest, an arbiter
 * whose answers come late, twice or never, a link that breaks at any message, hosts that crash and return
 * with nothing. A host may believe at any time that its peer is lost: that covers stalls, cuts and slowness.
 *
 * What the model keeps of failover/: who may release, who may promote, what is asked of the arbiter. What it
 * leaves out: time, disks, the planned handover, the content of an epoch. The guest's state is the set of
 * answers that it has given so far, as bits. An answer is let out when a client may have seen it.
 *
 * Checked in every reachable state:
 *   - an answer that was let out is known to every guest that may let out more (I1, I2);
 *   - never two hosts that may let out answers on their own (I5).
 * Checked under -DLIVE, with one fault: in the end one host runs the guest, and stays with it.
 *
 * -DPLANT_x breaks one rule each; run.sh shows that SPIN finds it.
 */
#ifndef ANSWERS
#define ANSWERS 2 /* answers that the guest can give */
#endif
#ifndef TERMS
#define TERMS 3 /* the newest term that anybody asks for */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifdef LIVE
#define FAULTS 1       /* one host crashes, or gives its peer up although it lives */
#define LOST_ANSWERS 1 /* of the arbiter */
#endif

/* DOWN: no process. LISTEN, FOLLOW: a secondary without a whole image. ALONE: runs, lets out at once. */
mtype = {DOWN, LISTEN, FOLLOW, STANDBY, ASKING, ALONE, PROTECTED, PEER_LOST};
mtype = {EPOCH, ACK};

mtype state[2] = LISTEN;
byte term[2];
byte knows[2];     /* the guest's or the image's answers, as bits */
byte asked[2];     /* the term that is asked for, 0: none */
bool connected[2]; /* this side believes that the link is up */
byte let_out;      /* answers that a client may have seen */
byte answers;      /* given so far, by any guest */
byte crashes;
byte faults;
byte lost_answers;

byte arbiter_term = 1;
byte arbiter_owner;

/* From host i to the other one. kind, term, answers. */
chan link[2] = [2] of {mtype, byte, byte};
/* Requests that are under way: the arbiter may see one long after it was sent. Answers: term, granted. */
byte request[2];
byte answer_term[2];
bool answer_granted[2];

#define OTHER (1 - me)
/* What survives a crash: a guest that is protected. */
#ifdef LIVE
#define MAY_CRASH (faults == 0 && (!RUNS(me) || state[OTHER] == STANDBY))
#else
#define MAY_CRASH true
#endif
#define RUNS(h) (state[h] == ALONE || state[h] == PROTECTED || state[h] == PEER_LOST)

inline let_out_alone(bits)
{
    assert(state[OTHER] != ALONE);
    let_out = let_out | (bits);
    /* A standby may lack it: then it must never get a grant. A guest that runs over there must know it. */
    assert(!(state[OTHER] == ALONE) || (let_out & ~knows[OTHER]) == 0);
}

inline close_link()
{
    connected[me] = false;
    do
    :: link[OTHER] ? _, _, _
    :: empty(link[OTHER]) -> break
    od
}

inline forget_all()
{
    close_link();
    knows[me] = 0;
    asked[me] = 0;
    answer_term[me] = 0;
    state[me] = LISTEN
}

inline ask(t)
{
    asked[me] = t;
    request[me] = t
}

/* The guest gives an answer: the next bit. */
inline give_answer()
{
    knows[me] = knows[me] | (1 << answers);
    answers++
}

active [2] proctype host()
{
    byte me = _pid, t, bits;
    bool ok;

    atomic {
        if
        :: me == 0 -> state[0] = ALONE; term[0] = 1
        :: else
        fi
    }
end:
    do
    /* ---- the guest runs here alone ---- */
    :: atomic { state[me] == ALONE && answers < ANSWERS ->
        give_answer();
        let_out_alone(knows[me])
    }
    /* Both sides look for each other: a connection, and at once a synchronisation. */
    :: atomic { state[me] == ALONE && !connected[me] && state[OTHER] == LISTEN && !connected[OTHER] ->
        if
        :: term[OTHER] > term[me] -> forget_all() /* fenced */
        :: else ->
            connected[me] = true;
            connected[OTHER] = true;
            term[OTHER] = term[me];
            knows[OTHER] = 0;
            state[OTHER] = FOLLOW
        fi
    }
    /* Synchronised: from here on output is held, then the first epoch is cut. */
    :: atomic { state[me] == ALONE && connected[me] && nfull(link[me]) ->
        state[me] = PROTECTED;
        link[me] ! EPOCH, term[me], knows[me]
    }
    :: atomic { state[me] == ALONE && connected[me] && !connected[OTHER] -> close_link() }

    /* ---- protected ---- */
    :: atomic { state[me] == PROTECTED && answers < ANSWERS && nfull(link[me]) ->
        give_answer();
        link[me] ! EPOCH, term[me], knows[me];
#ifdef PLANT_RELEASE_BEFORE_ACK
        let_out = let_out | knows[me]
#endif
    }
    :: atomic { (state[me] == PROTECTED) && connected[me] && link[OTHER] ? [ACK, t, bits] ->
        link[OTHER] ? ACK, t, bits;
        if
        :: t == term[me] ->
            let_out = let_out | bits;
            assert(state[OTHER] != ALONE || (let_out & ~knows[OTHER]) == 0)
        :: else
        fi;
        t = 0; bits = 0
    }
    /* The peer is lost, or only seems so. */
    :: atomic { state[me] == PROTECTED &&
#ifdef LIVE
        (!connected[OTHER] || faults + crashes < FAULTS) && (term[me] < TERMS) ->
        if
        :: connected[OTHER] -> faults++
        :: else
        fi;
#else
        term[me] < TERMS ->
#endif
        close_link();
#ifdef PLANT_ALONE_WITHOUT_GRANT
        state[me] = ALONE;
        let_out = let_out | knows[me];
#else
        state[me] = PEER_LOST;
        ask(term[me] + 1)
#endif
    }
    :: atomic { state[me] == PEER_LOST && answer_term[me] == asked[me] && asked[me] != 0 ->
        ok = answer_granted[me];
        answer_term[me] = 0;
        if
        :: ok ->
            term[me] = asked[me];
            asked[me] = 0;
            state[me] = ALONE;
            let_out_alone(knows[me])
        :: else -> forget_all() /* fenced: what was held is thrown away */
        fi;
        ok = false
    }

    /* ---- secondary ---- */
    :: atomic { (state[me] == FOLLOW || state[me] == STANDBY
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
            link[me] ! ACK, t, bits
        :: else
        fi;
        t = 0; bits = 0
    }
    :: atomic { state[me] == FOLLOW && !connected[OTHER] -> forget_all() }
    /* A newer term is heard: the image is history. */
    :: atomic { state[me] == STANDBY && RUNS(OTHER) && term[OTHER] > term[me] -> forget_all() }
    /* The primary is silent, or only seems so: from here on nothing is acked. */
    :: atomic { state[me] == STANDBY &&
#ifdef LIVE
        (!RUNS(OTHER) || faults + crashes < FAULTS) && (term[me] < TERMS) ->
        if
        :: RUNS(OTHER) -> faults++
        :: else
        fi;
#else
        term[me] < TERMS ->
#endif
#ifndef PLANT_ACK_WHILE_ASKING
        close_link();
#endif
        state[me] = ASKING;
#ifdef PLANT_ASK_NEWEST_TERM
        ask(arbiter_term + 1)
#else
        ask(term[me] + 1)
#endif
#ifdef PLANT_PROMOTE_WITHOUT_GRANT
        ; answer_term[me] = asked[me]; answer_granted[me] = true
#endif
    }
    :: atomic { state[me] == ASKING && answer_term[me] == asked[me] && asked[me] != 0 ->
        ok = answer_granted[me];
        answer_term[me] = 0;
        if
        :: ok ->
            /* The guest goes on here: it must know all that a client has seen. */
            assert((let_out & ~knows[me]) == 0);
            assert(state[OTHER] != ALONE);
            term[me] = asked[me];
            asked[me] = 0;
            state[me] = ALONE;
            close_link()
        :: else -> forget_all()
        fi;
        ok = false
    }
#ifndef PLANT_NEVER_ASK_AGAIN
    /* An answer that is lost: ask again, for the same term. */
    :: atomic { (state[me] == ASKING || state[me] == PEER_LOST) && asked[me] != 0 && request[me] == 0 &&
        answer_term[me] == 0 -> request[me] = asked[me] }
#endif

    /* ---- faults ---- */
    :: atomic { state[me] != DOWN && crashes < CRASHES && MAY_CRASH ->
        crashes++;
        forget_all();
        state[me] = DOWN
    }
    :: atomic { state[me] == DOWN -> state[me] = LISTEN; term[me] = 0 }
    od
}

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
        :: request[h] == arbiter_term && arbiter_owner != h -> answer_granted[h] = true
#endif
        :: request[h] == arbiter_term + 1 ->
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

#ifdef LIVE
/* Time goes on even where nothing else happens: otherwise the search takes a standstill for a fair run. */
bool tick;
active proctype clock()
{
    do
    :: tick = !tick
    od
}

ltl someone_runs { <>[] (state[0] == ALONE || state[0] == PROTECTED || state[1] == ALONE || state[1] == PROTECTED) }
#endif
