BEGIN TRANSACTION;
CREATE TABLE annotations (
            id TEXT PRIMARY KEY, prompt_id TEXT NOT NULL REFERENCES prompts (id), annotator TEXT NOT NULL,
            shown TEXT NOT NULL, answer TEXT NOT NULL, tiers TEXT NOT NULL, mode TEXT NOT NULL,
            value DOUBLE PRECISION, confidence TEXT NOT NULL, seconds DOUBLE PRECISION,
            submitted DOUBLE PRECISION NOT NULL, serial BIGINT NOT NULL, note TEXT NOT NULL,
            undone DOUBLE PRECISION, details TEXT NOT NULL, added DOUBLE PRECISION NOT NULL);
CREATE TABLE candidate_tokens (
            candidate_id TEXT PRIMARY KEY REFERENCES candidates (id), token_ids TEXT NOT NULL);
CREATE TABLE candidates (
            id TEXT PRIMARY KEY, prompt_id TEXT NOT NULL REFERENCES prompts (id), text TEXT NOT NULL,
            model TEXT NOT NULL, model_name TEXT NOT NULL, seed BIGINT NOT NULL, idx BIGINT NOT NULL,
            sampling TEXT NOT NULL, logprob DOUBLE PRECISION, n_tokens BIGINT, finish TEXT NOT NULL,
            source TEXT NOT NULL, added DOUBLE PRECISION NOT NULL, thought TEXT NOT NULL DEFAULT '');
INSERT INTO "candidates" VALUES('d4e1172c1f580e5b7f18','4a066cdafe6ea536236b','port','0123456789abcdef0123','',0,0,'{}',NULL,NULL,'','generate',1.79613172034805560111e+09,'');
INSERT INTO "candidates" VALUES('a9ac79310c2329d40166','6dfa055d5ba76e9db559','what?','0123456789abcdef0123','',0,0,'{}',NULL,NULL,'','generate',1.79613172034805560111e+09,'');
INSERT INTO "candidates" VALUES('f7050572d5f583476166','4a066cdafe6ea536236b','what?','0123456789abcdef0123','',0,1,'{}',NULL,NULL,'','generate',1.79613172067136096952e+09,'');
INSERT INTO "candidates" VALUES('a1835e32d4e3f5db7f3c','6dfa055d5ba76e9db559','stars','0123456789abcdef0123','',0,1,'{}',NULL,NULL,'','generate',1.79613172067136096952e+09,'');
CREATE TABLE judge_batches (
            id TEXT PRIMARY KEY, run_id TEXT NOT NULL, judge TEXT NOT NULL, endpoint TEXT NOT NULL,
            remote_id TEXT NOT NULL, status TEXT NOT NULL, asks TEXT NOT NULL, reserved DOUBLE PRECISION NOT NULL,
            created DOUBLE PRECISION NOT NULL);
CREATE TABLE judge_calls (
            id TEXT PRIMARY KEY, key TEXT NOT NULL, run_id TEXT NOT NULL, judge TEXT NOT NULL, endpoint TEXT NOT NULL,
            protocol TEXT NOT NULL, prompt_id TEXT NOT NULL, attempt BIGINT NOT NULL, status TEXT NOT NULL,
            reason TEXT NOT NULL, chars BIGINT NOT NULL, input_tokens BIGINT, output_tokens BIGINT,
            cost DOUBLE PRECISION, seconds DOUBLE PRECISION, started DOUBLE PRECISION NOT NULL,
            batch_id TEXT NOT NULL, raw TEXT NOT NULL);
CREATE TABLE judge_endpoints (
            id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, model TEXT NOT NULL, abilities TEXT NOT NULL,
            probed DOUBLE PRECISION NOT NULL);
CREATE TABLE leases (
            id TEXT PRIMARY KEY, prompt_id TEXT NOT NULL REFERENCES prompts (id), annotator TEXT NOT NULL,
            mode TEXT NOT NULL, shown TEXT NOT NULL, serial BIGINT NOT NULL,
            granted DOUBLE PRECISION NOT NULL, expires DOUBLE PRECISION NOT NULL, draft TEXT NOT NULL,
            previous TEXT NOT NULL, annotation TEXT, released DOUBLE PRECISION, details TEXT NOT NULL,
            added DOUBLE PRECISION NOT NULL);
CREATE TABLE preference_groups (
            id TEXT PRIMARY KEY, prompt TEXT NOT NULL, candidates TEXT NOT NULL, edges TEXT NOT NULL,
            system TEXT NOT NULL, prompt_id TEXT NOT NULL, family TEXT NOT NULL, split TEXT NOT NULL,
            added DOUBLE PRECISION NOT NULL, context TEXT NOT NULL DEFAULT '[]', tools TEXT NOT NULL DEFAULT '[]');
CREATE TABLE prompts (
            id TEXT PRIMARY KEY, text TEXT NOT NULL, system TEXT NOT NULL, family TEXT NOT NULL,
            category TEXT NOT NULL, split TEXT NOT NULL, source TEXT NOT NULL, checker TEXT NOT NULL,
            check_data TEXT NOT NULL, reference_texts TEXT NOT NULL, tags TEXT NOT NULL,
            added DOUBLE PRECISION NOT NULL, context TEXT NOT NULL DEFAULT '[]', tools TEXT NOT NULL DEFAULT '[]');
INSERT INTO "prompts" VALUES('4a066cdafe6ea536236b','Say PORT in lower case.','','','','test','','exact','{"answer":"port"}','[{"name":"plain","text":"port"}]','[]',1.79613172017442345625e+09,'[]','[]');
INSERT INTO "prompts" VALUES('6dfa055d5ba76e9db559','Say STARS in lower case.','','','','test','','exact','{"answer":"stars"}','[{"name":"plain","text":"stars"}]','[]',1.79613172017442345625e+09,'[]','[]');
CREATE TABLE rankings (
            id TEXT PRIMARY KEY, prompt_id TEXT NOT NULL REFERENCES prompts (id), tiers TEXT NOT NULL,
            source TEXT NOT NULL, details TEXT NOT NULL, added DOUBLE PRECISION NOT NULL);
CREATE TABLE run_groups (
            run_id TEXT NOT NULL REFERENCES runs (id),
            group_id TEXT NOT NULL REFERENCES preference_groups (id),
            PRIMARY KEY (run_id, group_id));
CREATE TABLE runs (
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, config TEXT NOT NULL, inputs TEXT NOT NULL,
            status TEXT NOT NULL, outputs TEXT NOT NULL, metrics TEXT NOT NULL, model TEXT NOT NULL,
            started DOUBLE PRECISION NOT NULL, finished DOUBLE PRECISION, added DOUBLE PRECISION NOT NULL);
INSERT INTO "runs" VALUES('e7fdb663d1c00f2158e3','eval','{"benchmark":"words","decoding":{"batch_size":64,"candidates":1,"concurrency":8,"greedy":false,"max_new_tokens":256,"retries":5,"seed":0,"temperature":0.0,"thinking":"keep","top_p":1.0},"name":"tiny","prompts":"b5bb8a2a2f00d5250bbb","scorer":[{"arguments":{},"scorer":"exact","version":"1"}]}','{"model":"0123456789abcdef0123"}','finished','{"benchmark":"words","coverage":1.0,"decoding":{"batch_size":64,"candidates":1,"concurrency":8,"greedy":false,"max_new_tokens":256,"retries":5,"seed":0,"temperature":0.0,"thinking":"keep","top_p":1.0},"model":"0123456789abcdef0123","model_path":"/models/tiny","name":"tiny","passed":1,"results":[{"category":"","cause":"","details":{},"family":"","key":[1.0],"n_tokens":null,"passed":true,"prompt":"Say PORT in lower case.","prompt_id":"4a066cdafe6ea536236b","reason":"","scorer":"exact","text":"port","tolerance":0.0,"value":1.0},{"category":"","cause":"another answer","details":{"expected":"stars","got":"what?"},"family":"","key":[0.0],"n_tokens":null,"passed":false,"prompt":"Say STARS in lower case.","prompt_id":"6dfa055d5ba76e9db559","reason":"","scorer":"exact","text":"what?","tolerance":0.0,"value":0.0}],"scored":2,"seconds":0.4227046590003738}','{"passed":1,"scored":2}','0123456789abcdef0123',1.7961317200878789425e+09,1.79613172059746932984e+09,1.79613172008852052695e+09);
INSERT INTO "runs" VALUES('e9e241bca0e38bfc22ca','eval-sampled','{"benchmark":"words","decoding":{"batch_size":64,"candidates":2,"concurrency":8,"greedy":false,"max_new_tokens":256,"retries":5,"seed":0,"temperature":0.8,"thinking":"keep","top_p":1.0},"name":"tiny","prompts":"b5bb8a2a2f00d5250bbb","scorer":[{"arguments":{},"scorer":"exact","version":"1"}]}','{"model":"0123456789abcdef0123"}','finished','{"benchmark":"words","decoding":{"batch_size":64,"candidates":2,"concurrency":8,"greedy":false,"max_new_tokens":256,"retries":5,"seed":0,"temperature":0.8,"thinking":"keep","top_p":1.0},"model":"0123456789abcdef0123","model_path":"/models/tiny","name":"tiny","results":[{"category":"","family":"","n":2,"passed":1,"prompt_id":"4a066cdafe6ea536236b","unscored":{}},{"category":"","family":"","n":2,"passed":1,"prompt_id":"6dfa055d5ba76e9db559","unscored":{}}],"seconds":0.269220389000111}','{"answers":4}','0123456789abcdef0123',1.79613172066801261902e+09,1.7961317209400825501e+09,1.79613172066841435435e+09);
INSERT INTO "runs" VALUES('88bf58385ba331cdb350','seal','{"name":"final"}','{"prompts":"5bcb7e87cc8fb92e3ba2"}','finished','{"file":"sealed/final.jsonl","ids":["bbe8c03083706ba6f27f"]}','{"prompts":1}','',1.79613172133220505718e+09,1.79613172133325409889e+09,1.79613172133254528047e+09);
CREATE TABLE schema_version (version BIGINT NOT NULL);
INSERT INTO "schema_version" VALUES(10);
CREATE TABLE scores (
            id TEXT PRIMARY KEY, candidate_id TEXT NOT NULL REFERENCES candidates (id), scorer TEXT NOT NULL,
            version TEXT NOT NULL, arguments TEXT NOT NULL, value DOUBLE PRECISION, reason TEXT NOT NULL,
            sort_key TEXT NOT NULL, tolerance DOUBLE PRECISION NOT NULL, passed BOOLEAN, cause TEXT NOT NULL,
            details TEXT NOT NULL, added DOUBLE PRECISION NOT NULL);
INSERT INTO "scores" VALUES('8b6f1ecd62b8dcda8324','d4e1172c1f580e5b7f18','exact','1','{}',1.0,'','[1.0]',0.0,1,'','{}',1.79613172052126574516e+09);
INSERT INTO "scores" VALUES('3683dc861e898d3e1cad','a9ac79310c2329d40166','exact','1','{}',0.0,'','[0.0]',0.0,0,'another answer','{"expected":"stars","got":"what?"}',1.79613172052126574516e+09);
INSERT INTO "scores" VALUES('4ce7279e4182965e33d8','f7050572d5f583476166','exact','1','{}',0.0,'','[0.0]',0.0,0,'another answer','{"expected":"port","got":"what?"}',1.79613172085670733451e+09);
INSERT INTO "scores" VALUES('bfcb2ee2bec9377f5cb3','a1835e32d4e3f5db7f3c','exact','1','{}',1.0,'','[1.0]',0.0,1,'','{}',1.79613172085670733451e+09);
CREATE TABLE verdicts (
            id TEXT PRIMARY KEY, prompt_id TEXT NOT NULL REFERENCES prompts (id), judge TEXT NOT NULL,
            protocol TEXT NOT NULL, shown TEXT NOT NULL, outcome TEXT NOT NULL, tiers TEXT NOT NULL,
            strength DOUBLE PRECISION NOT NULL, value DOUBLE PRECISION, shuffle BIGINT NOT NULL,
            reason TEXT NOT NULL, details TEXT NOT NULL, added DOUBLE PRECISION NOT NULL);
CREATE INDEX prompts_by_split ON prompts (split, id);
CREATE INDEX candidates_by_prompt ON candidates (prompt_id, seed, idx);
CREATE INDEX scores_by_candidate ON scores (candidate_id, scorer);
CREATE INDEX scores_by_scorer ON scores (scorer, added, version, value, passed);
CREATE INDEX rankings_by_prompt ON rankings (prompt_id);
CREATE INDEX preference_groups_by_prompt ON preference_groups (prompt_id);
CREATE INDEX verdicts_by_prompt ON verdicts (prompt_id, judge);
CREATE INDEX annotations_by_prompt ON annotations (prompt_id, annotator);
CREATE INDEX judge_calls_by_key ON judge_calls (key, status);
CREATE INDEX judge_calls_by_run ON judge_calls (run_id, cost);
CREATE INDEX leases_by_mode ON leases (mode, annotator);
COMMIT;
