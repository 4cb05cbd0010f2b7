-- A file has one engine, which has drawn the key. The number is the same in both.
SELECT 1;
